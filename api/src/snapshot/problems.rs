//! What is wrong with a document, all of it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use super::{PROBLEMS_LISTED_MAX, SnapshotInvalid};

/// The list of a document that an object is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Field {
    Bindings,
    Clusters,
    Roles,
    Rosters,
    Tokens,
    Users,
}

/// One object of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct At(pub Field, pub usize);

impl Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = match self.0 {
            Field::Bindings => "bindings",
            Field::Clusters => "clusters",
            Field::Roles => "roles",
            Field::Rosters => "rosters",
            Field::Tokens => "tokens",
            Field::Users => "users",
        };
        write!(f, "{field}[{}]", self.1)
    }
}

/// A field of an object, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{problem}", field, if field.is_empty() { "" } else { ": " })]
pub struct Unsound {
    /// Empty: the object as a whole.
    pub field: &'static str,
    pub problem: String,
}

/// What is wrong with a document: of itself, and the first of each object.
#[derive(Default)]
pub(super) struct Problems {
    own: Vec<String>,
    objects: BTreeMap<At, Unsound>,
    /// Beyond the first of an object.
    more: Vec<(At, Unsound)>,
    uncounted: usize,
}

impl Problems {
    pub(super) fn of_document(&mut self, field: &str, problem: impl Display) {
        self.own.push(format!("{field}: {problem}"));
    }

    pub(super) fn add(&mut self, at: At, field: &'static str, problem: impl Display) {
        let unsound = Unsound { field, problem: problem.to_string() };
        match self.objects.entry(at) {
            Entry::Vacant(first) => drop(first.insert(unsound)),
            Entry::Occupied(_) if self.more.len() < PROBLEMS_LISTED_MAX => self.more.push((at, unsound)),
            Entry::Occupied(_) => self.uncounted += 1,
        }
    }

    pub(super) fn keep<T, E: Display>(
        &mut self,
        at: At,
        field: &'static str,
        result: Result<T, E>,
    ) -> Option<T> {
        result.inspect_err(|error| self.add(at, field, error)).ok()
    }

    pub(super) fn unique<T: Ord>(&mut self, seen: &mut BTreeSet<T>, at: At, field: &'static str, value: T) {
        if !seen.insert(value) {
            self.add(at, field, "given twice");
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.objects.is_empty()
    }

    /// Those of objects; or what is wrong with the document itself, which no object can mend.
    pub(super) fn of_objects(self) -> Result<BTreeMap<At, Unsound>, SnapshotInvalid> {
        if self.own.is_empty() { Ok(self.objects) } else { Err(self.into()) }
    }

    /// The first, of an object that is looked at alone.
    pub(super) fn first(self) -> Option<Unsound> {
        self.objects.into_values().next()
    }
}

impl From<Problems> for SnapshotInvalid {
    fn from(Problems { own, objects, more, uncounted }: Problems) -> Self {
        let path = |(at, Unsound { field, problem }): (At, Unsound)| match field {
            "" => format!("{at}: {problem}"),
            field => format!("{at}.{field}: {problem}"),
        };
        let mut problems: Vec<_> = own.into_iter().chain(objects.into_iter().chain(more).map(path)).collect();
        let more = problems.len().saturating_sub(PROBLEMS_LISTED_MAX);
        problems.truncate(PROBLEMS_LISTED_MAX);
        Self::Objects { problems, more: more + uncounted }
    }
}
