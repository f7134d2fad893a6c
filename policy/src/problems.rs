//! Everything that is wrong with rules, by the object that it is wrong with: [`crate::Policy`] stops at the first.

use std::collections::{HashMap, HashSet};

use crate::ids::RoleName;
use crate::rules::{Domain, InvalidRules, Role, Rules};
use crate::templates;

/// One of the objects of [`Rules`], by its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    Binding(usize),
    Cluster(usize),
    Role(usize),
}

impl Rules {
    /// Empty where a policy can be made of them.
    pub fn problems(&self) -> Vec<(Part, InvalidRules)> {
        let mut problems = Vec::new();
        let mut clusters = HashSet::new();
        for (index, cluster) in self.clusters.iter().enumerate() {
            if !clusters.insert(&cluster.id) {
                problems.push((Part::Cluster(index), InvalidRules::ClusterTwice(cluster.id.clone())));
            }
        }
        let roles = self.roles_with_problems(&mut problems);
        for (index, binding) in self.bindings.iter().enumerate() {
            let problem = match &binding.domain {
                _ if !roles.contains(&binding.role) => InvalidRules::RoleUnknown(binding.role.clone()),
                Domain::Cluster(cluster) | Domain::Project(cluster, _) if !clusters.contains(cluster) => {
                    let (principal, cluster) = (binding.principal.clone(), cluster.clone());
                    InvalidRules::ClusterUnknown { principal, cluster }
                }
                Domain::Cluster(_) | Domain::Global | Domain::Project(..) => continue,
            };
            problems.push((Part::Binding(index), problem));
        }
        problems
    }

    /// The names that there are, of templates and own roles.
    fn roles_with_problems(&self, problems: &mut Vec<(Part, InvalidRules)>) -> HashSet<RoleName> {
        let templates = templates::all();
        let mut names: HashSet<_> = templates.iter().map(|template| template.name.clone()).collect();
        let mut own = HashMap::new();
        for (index, role) in self.roles.iter().enumerate() {
            if names.insert(role.name.clone()) {
                own.insert(&role.name, role);
            } else {
                problems.push((Part::Role(index), InvalidRules::RoleTwice(role.name.clone())));
            }
        }
        let mut without_cycle = HashSet::new();
        for (index, role) in self.roles.iter().enumerate() {
            let unsound =
                role.problem().map(|problem| InvalidRules::Rule { role: role.name.clone(), problem });
            let unknown = || role.inherits.iter().find(|name| !names.contains(*name));
            let unknown = || unknown().map(|name| InvalidRules::RoleUnknown(name.clone()));
            let cycle = || {
                let inherits_itself = !ends(role, &own, &mut Vec::new(), &mut without_cycle);
                inherits_itself.then(|| InvalidRules::RoleCycle(role.name.clone()))
            };
            problems
                .extend(unsound.or_else(unknown).or_else(cycle).map(|problem| (Part::Role(index), problem)));
        }
        names
    }
}

/// Whether inheritance from a role on comes to an end; `path` are the roles on the way here.
fn ends<'r>(
    role: &'r Role,
    own: &HashMap<&RoleName, &'r Role>,
    path: &mut Vec<&'r RoleName>,
    known: &mut HashSet<&'r RoleName>,
) -> bool {
    if known.contains(&role.name) {
        return true;
    }
    if path.contains(&&role.name) {
        return false;
    }
    path.push(&role.name);
    let ends = role.inherits.iter().filter_map(|name| own.get(name)).all(|next| ends(next, own, path, known));
    path.pop();
    if ends {
        known.insert(&role.name);
    }
    ends
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::Policy;
    use crate::ids::{ClusterId, Principal};
    use crate::rules::{Binding, ClusterRules, Effect, Rule};

    fn name(text: &str) -> RoleName {
        RoleName::parse(text).unwrap()
    }

    fn rules() -> impl Strategy<Value = Rules> {
        let role = (0..4u8, proptest::collection::vec(0..5u8, 0..3), any::<bool>()).prop_map(
            |(own, inherits, sound)| {
                let verbs = vec![if sound { "get" } else { "GET" }.to_owned()];
                let rule = Rule {
                    effect: Effect::Allow,
                    verbs,
                    groups: vec![String::new()],
                    resources: vec!["pods".into()],
                    names: vec![],
                    paths: vec![],
                };
                let named = |index: u8| name(["a", "b", "c", "admin", "unknown"][usize::from(index)]);
                Role {
                    name: named(own),
                    inherits: inherits.into_iter().map(named).collect(),
                    rules: vec![rule],
                }
            },
        );
        let binding = (0..4usize, 0..4usize).prop_map(|(role, domain)| Binding {
            principal: Principal::parse("local:user/1").unwrap(),
            role: name(["a", "b", "admin", "unknown"][role]),
            domain: match domain {
                0 => Domain::Global,
                1 => Domain::Project(ClusterId::parse("c-2").unwrap(), crate::ProjectId::parse("p").unwrap()),
                _ => Domain::Cluster(ClusterId::parse("c-1").unwrap()),
            },
            expires_at: None,
        });
        let cluster = (1..3u8).prop_map(|id| ClusterRules {
            id: ClusterId::parse(&format!("c-{id}")).unwrap(),
            projects: Default::default(),
        });
        use proptest::collection::vec;
        (vec(cluster, 0..3), vec(role, 0..4), vec(binding, 0..4))
            .prop_map(|(clusters, roles, bindings)| Rules { clusters, roles, bindings })
    }

    proptest! {
        #[test]
        fn rules_without_problems_are_those_that_a_policy_takes(rules in rules()) {
            let problems = rules.problems();
            let policy = Policy::new(rules, SystemTime::UNIX_EPOCH);
            prop_assert_eq!(problems.is_empty(), policy.is_ok(), "{:?} {:?}", problems, policy.err());
        }

        #[test]
        fn without_the_objects_that_are_named_the_rest_comes_to_be_sound(mut rules in rules()) {
            for _ in 0..16 {
                let parts: HashSet<_> = rules.problems().into_iter().map(|(part, _)| part).collect();
                if parts.is_empty() {
                    break;
                }
                let keep = |part: fn(usize) -> Part| { let parts = &parts; let mut index = 0; move || { index += 1; !parts.contains(&part(index - 1)) } };
                let (mut clusters, mut roles, mut bindings) = (keep(Part::Cluster), keep(Part::Role), keep(Part::Binding));
                rules.clusters.retain(|_| clusters());
                rules.roles.retain(|_| roles());
                rules.bindings.retain(|_| bindings());
            }
            prop_assert!(Policy::new(rules, SystemTime::UNIX_EPOCH).is_ok());
        }
    }
}
