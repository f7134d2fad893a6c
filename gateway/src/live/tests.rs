//! Each way in which a right goes, and what is no reason to end a request.

use drover_api::snapshot::Snapshot;
use drover_api::token::{CredentialHash, Generated, generate};

use super::*;

/// Zoe, who may read one cluster by a token; `changed` makes a later state of it.
struct Zoe {
    token: Generated,
}

impl Zoe {
    fn state(&self, revision: u64, changed: impl Fn(&str) -> String) -> Tables {
        let (id, hash) = (self.token.id.as_str(), String::from(self.token.hash));
        let proof_key = String::from(self.token.proof_key);
        let text = format!(
            r#"{{"format":1,"reader_min":1,"revision":{revision},"issued_at":"2026-11-25T12:00:00Z","max_staleness_s":600,
            "clusters":[{{"name":"one","id":"c-1"}},{{"name":"two","id":"c-2"}}],
            "users":[{{"principal":"local:user/7","name":"zoe","disabled":false}}],
            "tokens":[{{"id":"{id}","hash":"{hash}","proof_key":"{proof_key}","user":"local:user/7","kind":"bot","scope":"all","expires_at":"2026-11-25T12:05:00Z"}}],
            "roles":[],
            "bindings":[{{"name":"b","principal":"local:user/7","role":"cluster-viewer","domain":{{"cluster":"c-1"}}}}]}}"#
        );
        Tables::first(Snapshot::parse(changed(&text).as_bytes()).unwrap()).unwrap()
    }

    fn watch(&self, live: &Arc<Live>, tables: &Tables) -> Registered {
        let presented = Presented { id: self.token.id.clone(), hash: self.token.hash };
        let (authenticated, _) = authenticate(tables, &presented, at(0)).unwrap();
        let who = Who { authenticated, role_groups: None, wanted: None };
        let attributes = Attributes::parse("GET", "/api/v1/pods", Some("watch=true")).unwrap();
        live.register(&who, &ClusterId::parse("c-1").unwrap(), &Arc::new(attributes))
    }
}

/// So many seconds after the state was issued.
fn at(seconds: u64) -> SystemTime {
    let issued: jiff::Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
    SystemTime::from(issued) + Duration::from_secs(seconds)
}

#[test]
fn a_request_ends_with_whatever_admitted_it_and_with_nothing_else() {
    let zoe = Zoe { token: generate() };
    let other = String::from(CredentialHash::of(b"another"));
    let hash = String::from(zoe.token.hash);
    let first = zoe.state(1, str::to_owned);
    let replaced = |from: &str, to: &str| zoe.state(2, |text| text.replace(from, to));
    for (state, now, ends, why) in [
        (zoe.state(2, str::to_owned), at(1), false, "nothing changed"),
        (
            replaced(r#""name":"two","id":"c-2""#, r#""name":"three","id":"c-3""#),
            at(1),
            false,
            "another cluster",
        ),
        (replaced(r#""disabled":false"#, r#""disabled":true"#), at(1), true, "the user is disabled"),
        (replaced(&hash, &other), at(1), true, "the token is another"),
        (replaced(r#""scope":"all""#, r#""scope":{"clusters":["c-2"]}"#), at(1), true, "the token's scope"),
        (replaced(r#"{"cluster":"c-1"}"#, r#"{"cluster":"c-2"}"#), at(1), true, "the binding is elsewhere"),
        (zoe.state(2, str::to_owned), at(301), true, "the token has expired"),
        (zoe.state(2, str::to_owned), at(601), false, "the state is too old to say"),
    ] {
        let live = Arc::new(Live::default());
        let watch = zoe.watch(&live, &first);
        assert_eq!(live.review(&state, now), usize::from(ends), "{why}");
        assert_eq!(watch.ended().is_cancelled(), ends, "{why}");
    }
}

#[test]
fn a_state_between_admission_and_registration_is_not_missed_and_who_leaves_is_forgotten() {
    let zoe = Zoe { token: generate() };
    let live = Arc::new(Live::default());
    let watch = zoe.watch(&live, &zoe.state(1, str::to_owned));
    watch.review(&zoe.state(2, |text| text.replace(r#""disabled":false"#, r#""disabled":true"#)), at(1));
    assert!(watch.ended().is_cancelled());
    drop(watch);
    assert!(live.requests.is_empty());
}
