//! One unsound object holds back itself alone: it is set aside, and the access of its owner ends.
//!
//! A right that is lost is only lost. A deny that is lost gives something, so where a role or a binding of one is set
//! aside, whoever it was for is denied everything there.

use std::collections::BTreeMap;

use drover_policy::RoleName;

use super::problems::{At, Field, Problems, Unsound};
use super::{Document, Snapshot, SnapshotInvalid, check, rules};
use crate::kinds::{Binding, Effect, Kind, Role, Rule};

/// The role of those whose binding was set aside. Nobody makes one of this name.
pub const SET_ASIDE_ROLE: &str = "drover-set-aside";
/// What is left may be unsound without what was taken out: so often, and then the document is refused.
const ROUNDS_MAX: usize = 32;

/// An object that is not in a snapshot as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    pub kind: &'static str,
    pub key: String,
    pub unsound: Unsound,
    /// What is in its place.
    pub stand_in: Option<StandIn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StandIn {
    Binding(Binding),
    Role(Role),
}

/// The snapshot of all that is sound, and what is not.
pub fn sift(mut document: Document) -> Result<(Snapshot, Vec<SetAside>), SnapshotInvalid> {
    let mut aside = BTreeMap::new();
    for _ in 0..ROUNDS_MAX {
        let (unsound, problems) = match check::check(document) {
            Ok(snapshot) => return Ok((snapshot, aside.into_values().collect())),
            Err(refused) => *refused,
        };
        document = unsound;
        for taken in take_out(&mut document, problems)? {
            let SetAside { stand_in, .. } = aside
                .entry((taken.kind, taken.key.clone()))
                .or_insert_with(|| SetAside { stand_in: None, ..taken.clone() });
            stand_in.clone_from(&taken.stand_in);
        }
    }
    Snapshot::try_from(document).map(|snapshot| (snapshot, aside.into_values().collect()))
}

fn take_out(document: &mut Document, problems: Problems) -> Result<Vec<SetAside>, SnapshotInvalid> {
    let mut of = BTreeMap::<Field, BTreeMap<usize, Unsound>>::new();
    for (At(field, index), unsound) in problems.of_objects()? {
        of.entry(field).or_default().insert(index, unsound);
    }
    let mut take = |field| of.remove(&field).unwrap_or_default();
    let mut aside = Vec::new();
    aside.extend(extract(&mut document.clusters, take(Field::Clusters)));
    aside.extend(extract(&mut document.users, take(Field::Users)));
    aside.extend(extract(&mut document.tokens, take(Field::Tokens)));
    let unsound = take(Field::Rosters);
    let mut index = 0..;
    document.rosters.retain(|_| index.next().is_none_or(|index| !unsound.contains_key(&index)));
    let mut bindings = take(Field::Bindings);
    for (role, unsound) in extract_objects(&mut document.roles, take(Field::Roles)) {
        let stand_in = if is_template(&role.name) {
            // What was of this role would be of the template.
            distrust(document, &role.name, &mut bindings, &mut aside);
            None
        } else {
            RoleName::parse(&role.name).is_ok().then(|| StandIn::Role(denying_role(&role.name)))
        };
        aside.push(SetAside { kind: Role::KIND, key: role.name, unsound, stand_in });
    }
    for (binding, unsound) in extract_objects(&mut document.bindings, bindings) {
        let stand_in = denying_binding(&binding).map(StandIn::Binding);
        aside.push(SetAside { kind: Binding::KIND, key: binding.name, unsound, stand_in });
    }
    put_in(document, aside.iter().filter_map(|aside| aside.stand_in.clone()));
    Ok(aside)
}

/// Marks what names a role of which there is none now.
fn distrust(
    document: &mut Document,
    name: &str,
    bindings: &mut BTreeMap<usize, Unsound>,
    aside: &mut Vec<SetAside>,
) {
    let unsound = Unsound { field: "role", problem: format!("the role {name:?} was set aside") };
    for (index, _) in document.bindings.iter().enumerate().filter(|(_, binding)| binding.role == name) {
        bindings.entry(index).or_insert_with(|| unsound.clone());
    }
    for role in document.roles.iter_mut().filter(|role| role.inherits.iter().any(|of| of == name)) {
        *role = denying_role(&role.name);
        let (key, stand_in) = (role.name.clone(), Some(StandIn::Role(role.clone())));
        aside.push(SetAside { kind: Role::KIND, key, unsound: unsound.clone(), stand_in });
    }
}

fn extract<K: Kind>(
    objects: &mut Vec<K>,
    unsound: BTreeMap<usize, Unsound>,
) -> impl Iterator<Item = SetAside> {
    let extracted = extract_objects(objects, unsound).into_iter();
    extracted.map(|(object, unsound)| SetAside {
        kind: K::KIND,
        key: object.key().to_owned(),
        unsound,
        stand_in: None,
    })
}

fn extract_objects<K>(objects: &mut Vec<K>, mut unsound: BTreeMap<usize, Unsound>) -> Vec<(K, Unsound)> {
    if unsound.is_empty() {
        return Vec::new();
    }
    let mut extracted = Vec::new();
    for (index, object) in std::mem::take(objects).into_iter().enumerate() {
        match unsound.remove(&index) {
            Some(unsound) => extracted.push((object, unsound)),
            None => objects.push(object),
        }
    }
    extracted
}

/// Puts stand-ins where the objects were.
pub fn put_in(document: &mut Document, stand_ins: impl IntoIterator<Item = StandIn>) {
    for stand_in in stand_ins {
        match stand_in {
            StandIn::Role(role) => {
                document.roles.retain(|known| known.name != role.name);
                document.roles.push(role);
            }
            StandIn::Binding(binding) => {
                // Whatever the store has under that name gives nothing.
                document.roles.retain(|role| role.name != SET_ASIDE_ROLE);
                document.roles.push(denying_role(SET_ASIDE_ROLE));
                document.bindings.push(binding);
            }
        }
    }
}

fn is_template(name: &str) -> bool {
    drover_policy::templates::is_one(name)
}

/// A role that denies everything.
pub fn denying_role(name: &str) -> Role {
    let any = || vec!["*".to_owned()];
    let rule = |api_groups, resources, non_resource_urls| Rule {
        effect: Effect::Deny,
        verbs: any(),
        api_groups,
        resources,
        resource_names: Vec::new(),
        non_resource_urls,
    };
    let rules = vec![rule(any(), any(), Vec::new()), rule(Vec::new(), Vec::new(), any())];
    Role { name: name.to_owned(), inherits: Vec::new(), rules }
}

/// The same, but for the role; none where there is nobody whom it could deny anything, or nowhere.
pub fn denying_binding(binding: &Binding) -> Option<Binding> {
    if binding.role == SET_ASIDE_ROLE {
        return None;
    }
    let denying = Binding { role: SET_ASIDE_ROLE.to_owned(), ..binding.clone() };
    rules::binding(&denying).ok().map(|_| denying)
}

#[cfg(test)]
mod tests;
