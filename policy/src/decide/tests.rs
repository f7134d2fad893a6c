use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::ids::{Principal, ProjectId, RoleName};
use crate::rules::{Binding, ClusterRules, Domain, Effect, Role, Rule};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
const LATER: Duration = Duration::from_secs(60);

fn cluster(text: &str) -> ClusterId {
    ClusterId::parse(text).unwrap()
}

fn principal(text: &str) -> Principal {
    Principal::parse(text).unwrap()
}

fn role(text: &str) -> RoleName {
    RoleName::parse(text).unwrap()
}

fn project(text: &str) -> ProjectId {
    ProjectId::parse(text).unwrap()
}

fn get(path: &str) -> Attributes {
    Attributes::parse("GET", path, None).unwrap()
}

/// Two clusters; in the first, namespace `shop` belongs to project `web`.
fn rules(bindings: &[(&str, &str, Domain)]) -> Rules {
    let projects = BTreeMap::from([("shop".to_owned(), project("web"))]);
    let bindings = bindings.iter().map(|(who, what, domain)| Binding {
        principal: principal(who),
        role: role(what),
        domain: domain.clone(),
        expires_at: None,
    });
    Rules {
        clusters: vec![
            ClusterRules { id: cluster("c-1"), projects },
            ClusterRules { id: cluster("c-2"), projects: BTreeMap::new() },
        ],
        roles: vec![Role {
            name: role("no-secrets"),
            inherits: vec![],
            rules: vec![Rule {
                effect: Effect::Deny,
                verbs: vec!["*".into()],
                groups: vec!["".into()],
                resources: vec!["secrets".into()],
                names: vec![],
                paths: vec![],
            }],
        }],
        bindings: bindings.collect(),
    }
}

fn zoe() -> Subject {
    Subject::new(principal("local:user/zoe"), [principal("local:group/ops")])
}

fn check(policy: &Policy, id: &str, method: &str, path: &str, allowed: bool) {
    let attributes = Attributes::parse(method, path, None).unwrap();
    let decision = policy.decide(&zoe(), &cluster(id), attributes, NOW);
    assert_eq!(decision.is_ok(), allowed, "{id} {method} {path}: {decision:?}");
}

#[test]
fn a_viewer_reads_and_does_nothing_else() {
    let rules = rules(&[("local:group/ops", "cluster-viewer", Domain::Cluster(cluster("c-1")))]);
    let policy = Policy::new(rules, NOW + LATER).unwrap();
    for (method, path, allowed) in [
        ("GET", "/api/v1/pods", true),
        ("GET", "/api/v1/nodes", true),
        ("GET", "/api/v1/namespaces/shop/pods/a/log", true),
        ("GET", "/apis/apps/v1/deployments", true),
        ("GET", "/version", true),
        ("GET", "/openapi/v3", true),
        ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", true),
        ("GET", "/api/v1/namespaces/shop/secrets", false),
        ("GET", "/api/v1/namespaces/shop/pods/a/exec", false),
        ("POST", "/api/v1/namespaces/shop/pods/a/exec", false),
        ("GET", "/api/v1/namespaces/shop/pods/a/proxy/", false),
        ("GET", "/api/v1/nodes/a/proxy/", false),
        ("POST", "/api/v1/namespaces/shop/pods", false),
        ("DELETE", "/api/v1/namespaces/shop", false),
        ("GET", "/debug/pprof", false),
        ("GET", "/logs", false),
    ] {
        check(&policy, "c-1", method, path, allowed);
        check(&policy, "c-2", method, path, false);
    }
}

#[test]
fn a_projects_role_holds_in_its_namespaces_only() {
    let rules =
        rules(&[("local:user/zoe", "project-member", Domain::Project(cluster("c-1"), project("web")))]);
    let policy = Policy::new(rules, NOW + LATER).unwrap();
    for (path, allowed) in [
        ("/api/v1/namespaces/shop/pods", true),
        ("/api/v1/namespaces/shop/pods/a/exec", true),
        ("/api/v1/namespaces/other/pods", false),
        ("/api/v1/pods", false),
        ("/api/v1/nodes", false),
        ("/apis", true),
    ] {
        check(&policy, "c-1", "GET", path, allowed);
    }
    let permit = policy.decide(&zoe(), &cluster("c-1"), get("/api/v1/namespaces/shop/pods"), NOW).unwrap();
    assert_eq!(&**permit.role_groups(), ["drover:project:web:member".into()]);
}

#[test]
fn a_clusters_role_holds_in_its_projects_too_and_a_global_one_everywhere() {
    let of_cluster = rules(&[("local:user/zoe", "cluster-owner", Domain::Cluster(cluster("c-1")))]);
    let policy = Policy::new(of_cluster, NOW + LATER).unwrap();
    check(&policy, "c-1", "GET", "/api/v1/namespaces/shop/secrets", true);
    check(&policy, "c-2", "GET", "/api/v1/namespaces/shop/secrets", false);
    let policy = Policy::new(rules(&[("local:user/zoe", "admin", Domain::Global)]), NOW + LATER).unwrap();
    for id in ["c-1", "c-2"] {
        check(&policy, id, "DELETE", "/api/v1/namespaces/shop/secrets/a", true);
        let permit = policy.decide(&zoe(), &cluster(id), get("/metrics"), NOW).unwrap();
        assert_eq!(&**permit.role_groups(), ["drover:cluster-owner".into()]);
    }
}

#[test]
fn a_deny_decides_whoever_of_the_subject_holds_it() {
    let here = Domain::Cluster(cluster("c-1"));
    let rules = rules(&[
        ("local:user/zoe", "cluster-owner", here.clone()),
        ("local:group/ops", "no-secrets", Domain::Project(cluster("c-1"), project("web"))),
    ]);
    let policy = Policy::new(rules, NOW + LATER).unwrap();
    check(&policy, "c-1", "GET", "/api/v1/namespaces/shop/secrets", false);
    check(&policy, "c-1", "GET", "/api/v1/namespaces/other/secrets", true);
    let refused = policy.decide(&zoe(), &cluster("c-1"), get("/api/v1/namespaces/shop/secrets"), NOW);
    assert!(matches!(refused, Err(Refusal::Denied(_))), "{refused:?}");
}

#[test]
fn regression_a_deny_matches_whatever_a_request_may_touch() {
    let here = Domain::Cluster(cluster("c-1"));
    let mut of_a_name = rules(&[]).roles.remove(0);
    of_a_name.name = role("no-keys");
    of_a_name.rules[0].names = vec!["keys".into()];
    for (denying, domain, denied, allowed) in [
        (
            "no-secrets",
            Domain::Project(cluster("c-1"), project("web")),
            [
                "GET /api/v1/secrets",
                "GET /api/v1/secrets?watch=1",
                "DELETE /api/v1/secrets",
                "GET /api/v1/namespaces/shop/secrets",
                "GET /api/v1/watch/secrets",
            ],
            ["GET /api/v1/namespaces/other/secrets", "GET /api/v1/pods", "GET /api/v1/nodes", "GET /metrics"],
        ),
        (
            "no-keys",
            here.clone(),
            [
                "GET /api/v1/namespaces/other/secrets",
                "GET /api/v1/namespaces/other/secrets?watch=1",
                "DELETE /api/v1/namespaces/other/secrets",
                "POST /api/v1/namespaces/other/secrets",
                "GET /api/v1/namespaces/other/secrets?fieldSelector=metadata.name%3Dkeys",
            ],
            [
                "GET /api/v1/namespaces/other/secrets/others",
                "GET /api/v1/namespaces/other/secrets?fieldSelector=metadata.name%3Dothers",
                "GET /api/v1/namespaces/other/pods",
                "GET /api/v1/nodes",
            ],
        ),
    ] {
        let mut rules =
            rules(&[("local:user/zoe", "cluster-owner", here.clone()), ("local:group/ops", denying, domain)]);
        rules.roles.push(of_a_name.clone());
        let policy = Policy::new(rules, NOW + LATER).unwrap();
        let decide = |request: &str| {
            let (method, url) = request.split_once(' ').unwrap();
            let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
            let attributes = Attributes::parse(method, path, query).unwrap();
            policy.decide(&zoe(), &cluster("c-1"), attributes, NOW)
        };
        for request in denied {
            assert!(matches!(decide(request), Err(Refusal::Denied(_))), "{denying}: {request}");
        }
        for request in allowed {
            assert!(decide(request).is_ok(), "{denying}: {request}");
        }
    }
}

#[test]
fn regression_only_owners_reach_what_runs_in_system_namespaces() {
    let here = Domain::Cluster(cluster("c-1"));
    let reads = Role {
        name: role("reads-secrets"),
        inherits: vec![],
        rules: vec![Rule {
            effect: Effect::Allow,
            verbs: vec!["get".into(), "list".into(), "create".into()],
            groups: vec!["".into()],
            resources: vec!["*".into()],
            names: vec![],
            paths: vec![],
        }],
    };
    for (name, owns) in
        [("cluster-member", false), ("reads-secrets", false), ("cluster-owner", true), ("admin", true)]
    {
        let mut rules = rules(&[("local:user/zoe", name, here.clone())]);
        rules.roles.push(reads.clone());
        let policy = Policy::new(rules, NOW + LATER).unwrap();
        for (method, path, others) in [
            ("POST", "/api/v1/namespaces/NS/serviceaccounts/a/token", true),
            ("GET", "/api/v1/namespaces/NS/secrets/a", true),
            ("GET", "/api/v1/namespaces/NS/secrets", true),
            ("POST", "/api/v1/namespaces/NS/pods", true),
            ("GET", "/api/v1/namespaces/NS/pods/a/exec", true),
            ("POST", "/api/v1/namespaces/NS/secrets", true),
        ] {
            check(&policy, "c-1", method, &path.replace("NS", "shop"), others);
            for system in ["drover-system", "kube-system"] {
                check(&policy, "c-1", method, &path.replace("NS", system), owns);
            }
        }
        for (method, path) in [("GET", "/api/v1/secrets"), ("GET", "/api/v1/secrets?watch=1")] {
            let (path, query) =
                path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
            let attributes = Attributes::parse(method, path, query).unwrap();
            assert_eq!(
                policy.decide(&zoe(), &cluster("c-1"), attributes, NOW).is_ok(),
                owns,
                "{name} {path}"
            );
        }
        check(&policy, "c-1", "GET", "/api/v1/pods", true);
        check(&policy, "c-1", "GET", "/api/v1/namespaces/kube-system/pods", true);
    }
}

#[test]
fn members_resize_pods_and_write_no_endpoints() {
    let policy = Policy::new(
        rules(&[("local:user/zoe", "cluster-member", Domain::Cluster(cluster("c-1")))]),
        NOW + LATER,
    )
    .unwrap();
    check(&policy, "c-1", "PATCH", "/api/v1/namespaces/shop/pods/a/resize", true);
    check(&policy, "c-1", "POST", "/api/v1/namespaces/shop/services", true);
    for path in
        ["/api/v1/namespaces/shop/endpoints", "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"]
    {
        check(&policy, "c-1", "GET", path, true);
        check(&policy, "c-1", "POST", path, false);
    }
}

#[test]
fn each_refusal_says_why() {
    let rules = rules(&[("local:user/zoe", "cluster-viewer", Domain::Cluster(cluster("c-1")))]);
    let policy = Policy::new(rules, NOW + LATER).unwrap();
    let decide = |id: &str, now| policy.decide(&zoe(), &cluster(id), get("/metrics"), now).unwrap_err();
    assert_eq!(decide("c-9", NOW), Refusal::ClusterUnknown(cluster("c-9")));
    assert_eq!(decide("c-2", NOW), Refusal::NoRole(Box::new(get("/metrics"))));
    assert_eq!(decide("c-1", NOW), Refusal::NotPermitted(Box::new(get("/metrics"))));
    assert_eq!(decide("c-1", NOW + LATER), Refusal::PolicyExpired);
}

#[test]
fn a_binding_ends_at_its_moment_without_a_new_revision() {
    let mut rules = rules(&[("local:user/zoe", "cluster-viewer", Domain::Cluster(cluster("c-1")))]);
    rules.bindings[0].expires_at = Some(NOW + LATER);
    let policy = Policy::new(rules, NOW + LATER * 2).unwrap();
    let decide = |now| policy.decide(&zoe(), &cluster("c-1"), get("/api/v1/pods"), now);
    assert!(decide(NOW).is_ok());
    assert!(decide(NOW + LATER - Duration::from_nanos(1)).is_ok());
    assert!(matches!(decide(NOW + LATER), Err(Refusal::NoRole(_))));
}

#[test]
fn unsound_rules_are_refused_whole() {
    let here = Domain::Cluster(cluster("c-1"));
    let own = |name: &str, inherits: &[&str]| Role {
        name: role(name),
        inherits: inherits.iter().map(|text| role(text)).collect(),
        rules: vec![],
    };
    let with = |change: fn(&mut Rules, Vec<Role>), roles: Vec<Role>| {
        let mut rules = rules(&[]);
        change(&mut rules, roles);
        Policy::new(rules, NOW + LATER).map(drop)
    };
    let add = |rules: &mut Rules, roles: Vec<Role>| rules.roles.extend(roles);
    assert_eq!(with(add, vec![own("a", &["b"]), own("b", &["a"])]), Err(InvalidRules::RoleCycle(role("a"))));
    assert_eq!(with(add, vec![own("a", &["x"])]), Err(InvalidRules::RoleUnknown(role("x"))));
    assert_eq!(
        with(add, vec![own("cluster-viewer", &[])]),
        Err(InvalidRules::RoleTwice(role("cluster-viewer")))
    );
    let bad = Policy::new(rules(&[("local:user/zoe", "x", here)]), NOW + LATER).map(drop);
    assert_eq!(bad, Err(InvalidRules::RoleUnknown(role("x"))));
    let bad = Policy::new(rules(&[("local:user/zoe", "user", Domain::Cluster(cluster("c-9")))]), NOW + LATER)
        .map(drop);
    assert!(matches!(bad, Err(InvalidRules::ClusterUnknown { .. })));
    let twice = |rules: &mut Rules, _: Vec<Role>| rules.clusters.push(rules.clusters[0].clone());
    assert_eq!(with(twice, vec![]), Err(InvalidRules::ClusterTwice(cluster("c-1"))));
    let starless = |rules: &mut Rules, _: Vec<Role>| rules.roles[0].rules[0].resources = vec!["po*".into()];
    assert!(matches!(with(starless, vec![]), Err(InvalidRules::Rule { .. })));
}

#[test]
fn a_revision_drops_only_what_it_touched() {
    let here = |id| Domain::Cluster(cluster(id));
    let bindings =
        [("local:user/zoe", "cluster-viewer", here("c-1")), ("local:user/max", "no-secrets", here("c-1"))];
    let policy = Policy::new(rules(&bindings), NOW + LATER).unwrap();
    let max = Subject::new(principal("local:user/max"), []);
    let ask = |policy: &Policy| {
        for (subject, id) in [(zoe(), "c-1"), (zoe(), "c-2"), (max.clone(), "c-1")] {
            _ = policy.decide(&subject, &cluster(id), get("/api/v1/pods"), NOW);
        }
        policy.compilations()
    };
    assert_eq!(ask(&policy), 3);
    assert_eq!(ask(&policy.next(rules(&bindings), NOW + LATER).unwrap()), 0);
    // Another binding of zoe's in one cluster.
    let more = [&bindings[..], &[("local:group/ops", "user", here("c-2"))]].concat();
    assert_eq!(ask(&policy.next(rules(&more), NOW + LATER).unwrap()), 1);
    // A global one concerns all of her clusters.
    let more = [&bindings[..], &[("local:group/ops", "user", Domain::Global)]].concat();
    assert_eq!(ask(&policy.next(rules(&more), NOW + LATER).unwrap()), 2);
    // A role that only max holds.
    let mut changed = rules(&bindings);
    changed.roles[0].rules[0].effect = Effect::Allow;
    assert_eq!(ask(&policy.next(changed, NOW + LATER).unwrap()), 1);
    // A namespace that moves concerns everybody in that cluster.
    let mut changed = rules(&bindings);
    changed.clusters[0].projects.clear();
    assert_eq!(ask(&policy.next(changed, NOW + LATER).unwrap()), 2);
}

/// A small deterministic generator (xorshift64*): the same requests in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn some(&mut self, from: &[&str], most: usize) -> Vec<String> {
        let count = 1 + self.below(most);
        (0..count).map(|_| self.pick(from).to_owned()).collect()
    }
}

const PRINCIPALS: [&str; 6] =
    ["local:user/a", "local:user/b", "local:user/c", "local:group/x", "local:group/y", "local:group/z"];
const ROLES: [&str; 5] = ["r0", "r1", "r2", "r3", "r4"];
const NAMESPACES: [&str; 4] = ["web-1", "web-2", "free", "kube-system"];

fn random_rule(random: &mut Random) -> Rule {
    let effect = if random.below(4) == 0 { Effect::Deny } else { Effect::Allow };
    let verbs = random.some(&["*", "*", "get", "list", "watch", "create", "delete"], 3);
    let none = Vec::new;
    if random.below(5) == 0 {
        let paths = random.some(&["*", "/healthz", "/logs/*", "/metrics", "/api*"], 2);
        return Rule { effect, verbs, groups: none(), resources: none(), names: none(), paths };
    }
    let groups = random.some(&["*", "*", "", "apps"], 2);
    let resources = random.some(&["*", "*", "pods", "pods/log", "*/exec", "deployments", "secrets"], 3);
    let names = if random.below(4) == 0 { random.some(&["one", "two"], 2) } else { none() };
    Rule { effect, verbs, groups, resources, names, paths: none() }
}

fn random_rules(random: &mut Random) -> Rules {
    let projects =
        BTreeMap::from([("web-1".to_owned(), project("web")), ("web-2".to_owned(), project("shop"))]);
    let roles = ROLES.iter().enumerate().map(|(at, name)| Role {
        name: role(name),
        inherits: if at > 0 && random.below(3) == 0 { vec![role(ROLES[random.below(at)])] } else { vec![] },
        rules: (0..1 + random.below(3)).map(|_| random_rule(random)).collect(),
    });
    let roles = roles.collect();
    let binding = |random: &mut Random| Binding {
        principal: principal(random.pick(&PRINCIPALS)),
        role: role(random.pick(&ROLES)),
        domain: match random.below(5) {
            0 => Domain::Global,
            1 | 2 => Domain::Cluster(cluster(random.pick(&["c-1", "c-2"]))),
            _ => Domain::Project(cluster("c-1"), project(random.pick(&["web", "shop"]))),
        },
        expires_at: [None, None, None, Some(NOW), Some(NOW + LATER)][random.below(5)],
    };
    Rules {
        clusters: vec![
            ClusterRules { id: cluster("c-1"), projects },
            ClusterRules { id: cluster("c-2"), projects: BTreeMap::new() },
        ],
        roles,
        bindings: (0..18 + random.below(14)).map(|_| binding(random)).collect(),
    }
}

fn random_request(random: &mut Random) -> Attributes {
    let namespace = random.pick(&NAMESPACES);
    let path = match random.below(8) {
        0 => random.pick(&["/healthz", "/logs/a", "/metrics", "/api", "/apis/apps"]).to_owned(),
        1 => random.pick(&["/api/v1/pods", "/api/v1/secrets", "/api/v1/nodes"]).to_owned(),
        2 => random
            .pick(&[
                "/apis/apps/v1/namespaces/N/deployments",
                "/api/v1/namespaces/N/secrets",
                "/api/v1/namespaces/N",
            ])
            .replace('N', namespace),
        3 => format!("/api/v1/namespaces/{namespace}/pods/one/{}", random.pick(&["log", "exec", "status"])),
        4 => format!("/api/v1/namespaces/{namespace}/secrets/{}", random.pick(&["one", "two", "three"])),
        5 => {
            format!("/apis/apps/v1/namespaces/{namespace}/deployments/{}/scale", random.pick(&["one", "two"]))
        }
        _ => format!("/api/v1/namespaces/{namespace}/pods/{}", random.pick(&["one", "two", "three"])),
    };
    let query = (random.below(4) == 0).then_some("watch=1");
    Attributes::parse(random.pick(&["GET", "GET", "POST", "DELETE"]), &path, query).unwrap()
}

fn random_subject(random: &mut Random) -> Subject {
    let user = principal(random.pick(&PRINCIPALS[..3]));
    let groups: Vec<_> = (0..random.below(4)).map(|_| principal(random.pick(&PRINCIPALS[3..]))).collect();
    Subject::new(user, groups)
}

/// casbin with the rows as given, or without its deny rows, and each subject holding what its principals hold.
fn oracle(policy: &Policy, rules: &Rules, subjects: &[Subject], denies: bool) -> Enforcer {
    let (rows, _) = policy.index.casbin();
    let used = |row: &Vec<String>| ROLES.contains(&row[0].as_str()) || row[0] == "discovery";
    let rows = rows.into_iter().filter(|row| used(row) && (denies || row[6] != "deny")).collect();
    let mut held = std::collections::HashSet::new();
    for (at, subject) in subjects.iter().enumerate() {
        for binding in
            rules.bindings.iter().filter(|binding| subject.principals().contains(&binding.principal))
        {
            if binding.expires_at.is_some_and(|end| end <= NOW) {
                continue;
            }
            for domain in model::domains(&binding.domain) {
                held.insert(vec![format!("s{at}"), binding.role.to_string(), domain]);
            }
            let allows = policy
                .index
                .held(&binding.principal)
                .iter()
                .any(|held| held.role.name == binding.role && held.role.allows_anything());
            let cluster = match &binding.domain {
                Domain::Project(cluster, _) => Domain::Cluster(cluster.clone()),
                domain => domain.clone(),
            };
            if allows {
                held.insert(vec![format!("s{at}"), "discovery".to_owned(), model::domain(&cluster)]);
            }
        }
    }
    model::enforcer(rows, held.into_iter().collect()).unwrap()
}

#[test]
fn compiled_answers_are_casbins_own_on_20_000_random_requests() {
    const WORLDS: usize = 50;
    const REQUESTS: usize = 400;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut allowed, mut denied) = (0, 0);
    let mut before: Option<Policy> = None;
    for world in 0..WORLDS {
        let rules = random_rules(&mut random);
        let fresh = Policy::new(rules.clone(), NOW + LATER).unwrap();
        // Every other world comes as a revision of the one before, with its permissions carried over.
        let policy = match before.take().filter(|_| world % 2 == 1) {
            Some(before) => before.next(rules.clone(), NOW + LATER).unwrap(),
            None => fresh,
        };
        let subjects: Vec<_> = (0..8).map(|_| random_subject(&mut random)).collect();
        let (casbin, without_denies) =
            (oracle(&policy, &rules, &subjects, true), oracle(&policy, &rules, &subjects, false));
        for _ in 0..REQUESTS {
            let at = random.below(subjects.len());
            let id = cluster(random.pick(&["c-1", "c-1", "c-2"]));
            let attributes = random_request(&mut random);
            let project = match attributes.target() {
                Target::Resource(target) => {
                    target.namespace().and_then(|namespace| policy.index.clusters[&id].get(namespace))
                }
                Target::NonResource(_) => None,
            };
            let name = format!("s{at}");
            let expected = model::enforce(&casbin, &name, &id, project, &attributes);
            let decision = policy.decide(&subjects[at], &id, attributes.clone(), NOW);
            assert_eq!(
                decision.is_ok(),
                expected,
                "{world}: {:?} {id} {attributes:?} {rules:#?}",
                subjects[at]
            );
            allowed += usize::from(expected);
            if matches!(decision, Err(Refusal::Denied(_)))
                && model::enforce(&without_denies, &name, &id, project, &attributes)
            {
                denied += 1;
            }
        }
        before = Some(policy);
    }
    let requests = WORLDS * REQUESTS;
    println!("{requests} requests: {allowed} allowed, {denied} decided by a deny row");
    assert!(allowed * 100 >= requests * 30, "{allowed} allowed");
    assert!(denied * 100 >= requests * 10, "{denied} denied by a deny row");
}
