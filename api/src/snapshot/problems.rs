//! What is wrong with a document, all of it.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::{PROBLEMS_LISTED_MAX, SnapshotInvalid};

/// What is wrong with a document, by the path of the object.
#[derive(Default)]
pub(super) struct Problems {
    listed: Vec<String>,
    more: usize,
}

impl Problems {
    pub(super) fn add(&mut self, path: impl Display, problem: impl Display) {
        if self.listed.len() < PROBLEMS_LISTED_MAX {
            self.listed.push(format!("{path}: {problem}"));
        } else {
            self.more += 1;
        }
    }

    pub(super) fn keep<T, E: Display>(&mut self, path: impl Display, result: Result<T, E>) -> Option<T> {
        result.inspect_err(|error| self.add(path, error)).ok()
    }

    pub(super) fn unique<T: Ord>(&mut self, seen: &mut BTreeSet<T>, path: impl Display, value: T) {
        if !seen.insert(value) {
            self.add(path, "given twice");
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }
}

impl From<Problems> for SnapshotInvalid {
    fn from(Problems { listed: problems, more }: Problems) -> Self {
        Self::Objects { problems, more }
    }
}
