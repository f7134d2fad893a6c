use super::*;
use crate::identity::GROUPS_SENT_MAX;

/// The example that people copy.
fn example() -> serde_json::Value {
    let page = include_str!("../../../docs/snapshot.md");
    let (_, rest) = page.split_once("```json\n").unwrap();
    serde_json::from_str(rest.split_once("```").unwrap().0).unwrap()
}

/// Parses the example with `pointer` set to `value`.
fn changed(pointer: &str, value: serde_json::Value) -> Result<Snapshot, SnapshotInvalid> {
    let mut document = example();
    *document.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is not there")) = value;
    Snapshot::parse(document.to_string().as_bytes())
}

#[test]
fn the_documented_example_is_a_snapshot() {
    let snapshot = Snapshot::parse(example().to_string().as_bytes()).unwrap();
    assert_eq!(snapshot.revision, 7);
    assert_eq!((snapshot.clusters.len(), snapshot.users.len(), snapshot.tokens.len()), (1, 1, 1));
    assert_eq!((snapshot.rules.roles.len(), snapshot.rules.bindings.len()), (1, 1));
    assert_eq!(snapshot.stale_at, snapshot.issued_at + Duration::from_secs(3600));
}

#[test]
fn one_unsound_object_refuses_the_whole_and_is_named() {
    for (pointer, value, expected) in [
        ("/max_staleness_s", 0.into(), "max_staleness_s: must be 1 to 604800"),
        ("/max_staleness_s", u64::MAX.into(), "max_staleness_s: must be 1 to 604800"),
        ("/clusters/0/name", "c-7f3k2".into(), "clusters[0].name"),
        ("/clusters/0/name", "Prod".into(), "clusters[0].name"),
        ("/clusters/0/id", "7f3k2".into(), "clusters[0].id"),
        (
            "/users/0/name",
            "system:admin".into(),
            "users[0].name: begins with what Kubernetes or Drover keeps",
        ),
        ("/users/0/name", "drover:x".into(), "users[0].name: begins with what Kubernetes or Drover keeps"),
        ("/users/0/name", "a\nb".into(), "users[0].name: has control characters"),
        ("/users/0/display_name", " Zoe".into(), "users[0].display_name: is empty, or begins"),
        ("/users/0/principal", "zoe".into(), "users[0].principal"),
        ("/users/0/groups/0", "system:masters".into(), "users[0].groups"),
        ("/tokens/0/user", "local:user/8".into(), "tokens[0].user: no such user"),
        ("/tokens/0/scope", serde_json::json!({"clusters": []}), "names no cluster"),
        ("/tokens/0/scope", serde_json::json!({"clusters": ["c-none"]}), "no cluster \"c-none\""),
        ("/bindings/0/principal", "ops".into(), "bindings[0]"),
        ("/bindings/0/domain", serde_json::json!({"cluster": "none"}), "bindings[0]"),
        ("/bindings/0/domain", "everywhere".into(), "unknown variant"),
        ("/roles/0/rules/0/effect", "permit".into(), "unknown variant"),
        ("/tokens/0/kind", "root".into(), "unknown variant"),
        ("/tokens/0/hash", "00".into(), "not a snapshot"),
    ] {
        let refused = changed(pointer, value).unwrap_err().to_string();
        assert!(refused.contains(expected), "{pointer}: {refused}");
    }
}

#[test]
fn groups_have_limits() {
    let groups = |count: usize| (0..count).map(|number| format!("local:group/g{number}")).collect::<Vec<_>>();
    for (pointer, most, expected) in [
        ("/users/0/groups", USER_GROUPS_MAX, "users[0]: more than 5000 groups"),
        ("/clusters/0/groups_listed", GROUPS_SENT_MAX, "clusters[0].groups_listed: more than 256 groups"),
    ] {
        let mut document = example();
        document["clusters"][0]["groups_listed"] = serde_json::json!([]);
        let mut with = |count| {
            *document.pointer_mut(pointer).unwrap() = groups(count).into();
            Snapshot::parse(document.to_string().as_bytes())
        };
        assert!(with(most).is_ok(), "{pointer}");
        let refused = with(most + 1).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
}

#[test]
fn objects_that_are_given_twice_are_refused() {
    for (list, expected) in [
        ("clusters", "clusters[1].name: given twice"),
        ("users", "users[1].principal: given twice"),
        ("tokens", "tokens[1].id: given twice"),
        ("bindings", "bindings[1].name: given twice"),
    ] {
        let mut document = example();
        let again = document[list][0].clone();
        document[list].as_array_mut().unwrap().push(again);
        let refused = Snapshot::parse(document.to_string().as_bytes()).unwrap_err().to_string();
        assert!(refused.contains(expected), "{list}: {refused}");
    }
}

#[test]
fn unknown_fields_and_newer_formats_are_refused() {
    let mut document = example();
    document["users"][0]["is_admin"] = true.into();
    let refused = Snapshot::parse(document.to_string().as_bytes()).unwrap_err();
    assert!(refused.to_string().contains("unknown field `is_admin`"), "{refused}");
    let mut document = example();
    (document["format"], document["reader_min"], document["more"]) = (9.into(), 2.into(), true.into());
    let refused = Snapshot::parse(document.to_string().as_bytes()).unwrap_err();
    assert!(matches!(refused, SnapshotInvalid::TooNew { format: 9, reader_min: 2 }), "{refused}");
}

#[test]
fn every_problem_is_counted_and_the_first_are_listed() {
    let mut document = example();
    document["clusters"] = (0..30).map(|_| serde_json::json!({"name": "X", "id": "x"})).collect();
    let refused = Snapshot::parse(document.to_string().as_bytes()).unwrap_err();
    let SnapshotInvalid::Objects { problems, more } = &refused else { panic!("{refused}") };
    assert_eq!(problems.len(), PROBLEMS_LISTED_MAX);
    assert!(*more > 90 && refused.to_string().ends_with(&format!("; and {more} more")), "{refused}");
}
