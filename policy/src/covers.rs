//! Whether a subject holds all that a role gives, so that nobody gives what they do not hold.

use std::time::SystemTime;

use crate::compiled::covers as covers_path;
use crate::ids::{RoleName, Subject};
use crate::impersonate::VERB;
use crate::index::{Held, Index};
use crate::model::{ANY, Kind, Row};
use crate::rules::{Domain, Effect};

/// Until when a subject holds something; none: it does not end by itself.
pub type Until = Option<SystemTime>;

/// The one that ends first.
pub fn earlier(one: Until, other: Until) -> Until {
    [one, other].into_iter().flatten().min()
}

/// The one that ends last.
pub fn later(one: Until, other: Until) -> Until {
    one.zip(other).map(|(one, other)| one.max(other))
}

/// All that a subject holds and that has not ended.
pub(crate) fn held<'i>(
    index: &'i Index,
    subject: &Subject,
    now: SystemTime,
) -> impl Iterator<Item = &'i Held> {
    let held = subject.principals().iter().flat_map(|principal| index.held(principal));
    held.filter(move |held| held.expires_at.is_none_or(|end| now < end))
}

/// Who is denied anything in the domain, or in a part of it, gives nothing there: what a deny leaves of a rule is
/// not compared.
pub(crate) fn covers(
    index: &Index,
    subject: &Subject,
    role: &RoleName,
    domain: &Domain,
    now: SystemTime,
) -> Option<Until> {
    let given = index.role(role)?;
    let held: Vec<&Held> = held(index, subject, now).collect();
    let touching =
        held.iter().filter(|held| contains(&held.domain, domain) || contains(domain, &held.domain));
    if touching.flat_map(|held| &held.role.rows).any(|row| row.effect == Effect::Deny) {
        return None;
    }
    let whole = held.iter().filter(|held| contains(&held.domain, domain));
    let rows: Vec<_> =
        whole.flat_map(|held| held.role.rows.iter().map(|row| (row, held.expires_at))).collect();
    let given = given.rows.iter().filter(|row| row.effect == Effect::Allow);
    given
        .map(|given| {
            let covering = rows.iter().filter(|(held, _)| contains_row(held, given)).map(|(_, until)| *until);
            covering.reduce(later)
        })
        .try_fold(None, |until, row| Some(earlier(until, row?)))
}

/// Until when a subject holds a role itself, and not only what it gives.
pub(crate) fn holds(
    index: &Index,
    subject: &Subject,
    role: &RoleName,
    domain: &Domain,
    now: SystemTime,
) -> Option<Until> {
    let held = held(index, subject, now);
    let held = held.filter(|held| held.role.name == *role && contains(&held.domain, domain));
    held.map(|held| held.expires_at).reduce(later)
}

fn contains(held: &Domain, wanted: &Domain) -> bool {
    match (held, wanted) {
        (Domain::Global, _) => true,
        (Domain::Cluster(held), Domain::Cluster(wanted) | Domain::Project(wanted, _)) => held == wanted,
        (Domain::Project(..), Domain::Project(..)) => held == wanted,
        (Domain::Cluster(_), Domain::Global) | (Domain::Project(..), Domain::Cluster(_) | Domain::Global) => {
            false
        }
    }
}

fn contains_row(held: &Row, given: &Row) -> bool {
    let is = |held: &str, given: &str| held == ANY || held == given;
    // `*` does not stand for it: see `crate::impersonate`.
    let verb = if given.verb == VERB { held.verb == VERB } else { is(&held.verb, &given.verb) };
    held.kind == given.kind
        && verb
        && match given.kind {
            Kind::Path => covers_path(&held.resource, &given.resource),
            Kind::Resource => {
                is(&held.group, &given.group)
                    && contains_resource(&held.resource, &given.resource)
                    && is(&held.name, &given.name)
            }
        }
}

/// `*` contains all, and `*/log` contains `pods/log`.
fn contains_resource(held: &str, given: &str) -> bool {
    if held == ANY || held == given {
        return true;
    }
    match (held.split_once('/'), given.split_once('/')) {
        (Some((ANY, held)), Some((_, given))) => held == given,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Policy;
    use crate::ids::{ClusterId, Principal, ProjectId};
    use crate::rules::{Binding, ClusterRules, Role, Rule, Rules};

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn rule(effect: Effect, verbs: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Rule {
            effect,
            verbs: owned(verbs),
            groups: owned(&["apps"]),
            resources: owned(resources),
            names: owned(names),
            paths: Vec::new(),
        }
    }

    fn role(name: &str) -> RoleName {
        RoleName::parse(name).unwrap()
    }

    /// Whether who holds one role, in a domain, may give another, in a domain.
    fn check(held: &[(&str, Domain)], given: &str, domain: &Domain, expected: bool) {
        let own = |name: &str, rules| Role { name: role(name), inherits: Vec::new(), rules };
        let allow = |verbs: &[&str], resources: &[&str]| rule(Effect::Allow, verbs, resources, &[]);
        let zoe = Principal::parse("local:user/7").unwrap();
        let cluster =
            |id: &str| ClusterRules { id: ClusterId::parse(id).unwrap(), projects: BTreeMap::new() };
        let bindings = held.iter().map(|(name, domain)| Binding {
            principal: zoe.clone(),
            role: role(name),
            domain: domain.clone(),
            expires_at: None,
        });
        let rules = Rules {
            clusters: vec![cluster("c-1"), cluster("c-2")],
            roles: vec![
                own("reads", vec![allow(&["get", "list"], &["deployments", "deployments/scale"])]),
                own("scales", vec![allow(&["*"], &["*/scale"])]),
                own("reads-one", vec![rule(Effect::Allow, &["get"], &["deployments"], &["web"])]),
                own("reads-all", vec![allow(&["*"], &["*"])]),
                own("no-scale", vec![rule(Effect::Deny, &["*"], &["deployments/scale"], &[])]),
                own("acts-as", vec![rule(Effect::Allow, &["impersonate"], &["users"], &[])]),
                own("scale-only", vec![allow(&["get"], &["deployments/scale"])]),
            ],
            bindings: bindings.collect(),
        };
        let policy = Policy::new(rules, NOW + std::time::Duration::from_secs(1)).unwrap();
        let subject = Subject::new(zoe, []);
        let found = policy.covers(&subject, &role(given), domain, NOW).is_some();
        assert_eq!(found, expected, "{held:?} gives {given} in {domain:?}");
    }

    #[test]
    fn a_role_is_given_only_by_who_holds_all_of_it_in_all_of_the_domain() {
        let cluster = |id: &str| Domain::Cluster(ClusterId::parse(id).unwrap());
        let web = Domain::Project(ClusterId::parse("c-1").unwrap(), ProjectId::parse("web").unwrap());
        let (one, two) = (cluster("c-1"), cluster("c-2"));
        for (held, given, expected) in [
            ("admin", "admin", true),
            ("cluster-owner", "cluster-owner", true),
            ("cluster-owner", "cluster-viewer", true),
            ("cluster-owner", "reads", true),
            ("cluster-member", "cluster-viewer", true),
            ("cluster-member", "cluster-owner", false),
            ("cluster-viewer", "cluster-member", false),
            ("reads-all", "reads", true),
            ("reads", "reads-one", true),
            ("reads-one", "reads", false),
            ("reads", "reads-all", false),
            ("scales", "scale-only", true),
            ("scale-only", "scales", false),
            // Nothing is given by it, and whoever has it gives nothing.
            ("reads", "no-scale", true),
            ("user", "reads", false),
            ("admin", "unknown", false),
            ("admin", "acts-as", false),
            ("reads-all", "acts-as", false),
            ("acts-as", "acts-as", true),
        ] {
            check(&[(held, one.clone())], given, &one, expected);
        }
        let owner = |domain: &Domain| [("cluster-owner", domain.clone())];
        check(&owner(&one), "reads", &two, false);
        check(&owner(&one), "reads", &web, true);
        check(&owner(&one), "reads", &Domain::Global, false);
        check(&owner(&web), "reads", &web, true);
        check(&owner(&web), "reads", &one, false);
        check(&owner(&Domain::Global), "reads", &two, true);
        check(&[], "reads", &one, false);
        let two_roles = [("scales", one.clone()), ("reads-one", one.clone())];
        check(&two_roles, "scale-only", &one, true);
        check(&two_roles, "reads", &one, false);
        for denied in [&one, &web, &Domain::Global] {
            check(&[("admin", Domain::Global), ("no-scale", denied.clone())], "reads", &one, false);
        }
        check(&[("admin", Domain::Global), ("no-scale", one.clone())], "reads", &Domain::Global, false);
        check(&[("admin", Domain::Global), ("no-scale", one.clone())], "reads", &two, true);
    }

    #[test]
    fn regression_what_is_given_ends_with_what_covers_it() {
        let (early, late) =
            (NOW + std::time::Duration::from_secs(60), NOW + std::time::Duration::from_secs(90));
        let one = || Domain::Cluster(ClusterId::parse("c-1").unwrap());
        let zoe = Principal::parse("local:user/7").unwrap();
        for (held, given, expected) in [
            (vec![("cluster-owner", Some(early))], "cluster-viewer", Some(Some(early))),
            (
                vec![("cluster-owner", Some(early)), ("cluster-owner", Some(late))],
                "cluster-viewer",
                Some(Some(late)),
            ),
            (vec![("cluster-owner", Some(early)), ("cluster-viewer", None)], "cluster-viewer", Some(None)),
            (
                vec![("cluster-viewer", Some(early)), ("project-member", Some(late))],
                "cluster-member",
                Some(Some(early)),
            ),
            (vec![("cluster-owner", Some(NOW))], "cluster-viewer", None),
            (vec![("cluster-owner", None)], "user", Some(None)),
        ] {
            let binding = |(name, expires_at): &(&str, Until)| Binding {
                principal: zoe.clone(),
                role: role(name),
                domain: one(),
                expires_at: *expires_at,
            };
            let clusters =
                vec![ClusterRules { id: ClusterId::parse("c-1").unwrap(), projects: BTreeMap::new() }];
            let rules = Rules { clusters, roles: vec![], bindings: held.iter().map(binding).collect() };
            let policy = Policy::new(rules, late + std::time::Duration::from_secs(1)).unwrap();
            let found = policy.covers(&Subject::new(zoe.clone(), []), &role(given), &one(), NOW);
            assert_eq!(found, expected, "{held:?} gives {given}");
        }
    }
}
