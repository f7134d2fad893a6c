//! What a gateway takes up of what control pushes, and what it refuses and keeps instead.

use drover_api::kinds::{Token, TokenKind, TokenScope};
use drover_api::signed::Signer;
use drover_api::snapshot::assertions::{Assertions, Epoch};
use drover_api::snapshot::delta::Changes;
use drover_api::token;

use super::*;

fn whole(revision: u64, clusters: &str) -> Push {
    let issued_at = jiff::Timestamp::now();
    Push::Whole(format!(
        r#"{{"format":1,"reader_min":1,"revision":{revision},"issued_at":"{issued_at}","max_staleness_s":600,
        "clusters":[{clusters}],"users":[],"tokens":[],"roles":[],"bindings":[]}}"#
    ))
}

fn delta(from: u64, revision: u64, clusters: &str) -> Push {
    let issued_at = jiff::Timestamp::now();
    let text = format!(
        r#"{{"format":1,"reader_min":1,"from":{from},"revision":{revision},"issued_at":"{issued_at}",
        "max_staleness_s":600,"clusters":{{"put":[{clusters}]}}}}"#
    );
    Push::Delta(Box::new(Delta::parse(text.as_bytes()).unwrap()))
}

const ONE: &str = r#"{"name":"one","id":"c-1"}"#;
const TWO: &str = r#"{"name":"two","id":"c-2"}"#;

fn held(folder: &Path) -> Held {
    Held { saved: Saved::open(folder).unwrap().0, document: None }
}

fn serves(current: &Current) -> Option<u64> {
    current.tables().map(|tables| tables.revision)
}

#[test]
fn a_push_is_served_from_and_found_again_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (mut held, current) = (held(folder.path()), Current::new());
    for (push, revision) in [(whole(3, ONE), 3), (delta(3, 5, TWO), 5), (delta(5, 5, ""), 5)] {
        let (pushed, taken_up) = held.take_up(push, &current);
        taken_up.unwrap();
        assert_eq!((pushed, serves(&current)), (revision, Some(revision)));
        let found = Saved::open(folder.path()).unwrap().1.unwrap().unwrap();
        assert_eq!(found.revision, revision);
    }
}

#[test]
fn a_push_that_is_not_sound_or_does_not_follow_leaves_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (mut held, current) = (held(folder.path()), Current::new());
    assert!(held.take_up(delta(0, 1, ONE), &current).1.is_err(), "there is nothing to change yet");
    held.take_up(whole(3, ONE), &current).1.unwrap();
    let twin = r#"{"name":"twin","id":"c-1"}"#;
    for (push, why) in [
        (delta(2, 4, TWO), "a gap"),
        (delta(3, 4, twin), "an unsound delta"),
        (whole(4, &format!("{ONE},{twin}")), "an unsound state"),
        (whole(2, ONE), "an older state"),
        (Push::Whole("{".to_owned()), "no state at all"),
    ] {
        assert!(held.take_up(push, &current).1.is_err(), "{why}");
        let found = Saved::open(folder.path()).unwrap().1.unwrap().unwrap();
        assert_eq!((held.revision(), serves(&current), found.revision), (Some(3), Some(3), 3), "{why}");
    }
}

#[test]
fn what_the_disk_does_not_take_is_served_and_not_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (mut held, current) = (held(folder.path()), Current::new());
    std::fs::remove_dir_all(folder.path()).unwrap();
    let (_, taken_up) = held.take_up(whole(3, ONE), &current);
    assert!(format!("{:#}", taken_up.unwrap_err()).contains("failed to keep it"));
    assert_eq!(serves(&current), Some(3));
    std::fs::create_dir(folder.path()).unwrap();
    // Control says next that the state is still the one: it is kept whole then.
    held.take_up(delta(3, 3, ""), &current).1.unwrap();
    assert_eq!(Saved::open(folder.path()).unwrap().1.unwrap().unwrap().revision, 3);
}

fn token(user: &str) -> Token {
    let made = token::generate();
    Token {
        id: made.id,
        hash: made.hash,
        proof_key: made.proof_key,
        user: user.to_owned(),
        kind: TokenKind::Bot,
        scope: TokenScope::All,
        expires_at: jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1),
        idle_s: None,
        session: None,
        made_by: None,
        jwt_ends_at: None,
    }
}

/// Signatures of a time, of which each says something else.
fn signed(began_s: u64, tokens: &[&Token]) -> Assertions {
    let signer = Signer::from_seed(&[1; 32]);
    let epoch = Epoch { key: signer.id(), issued_at_s: began_s, expires_at_s: began_s + 3600 };
    let sign = |token: &&Token| {
        let said = format!("{began_s} {} {:?}", token.id, token.scope);
        (token.id.clone(), signer.sign(drover_api::signed::Context::Assertion, said.as_bytes()))
    };
    Assertions { epoch, signatures: tokens.iter().map(sign).collect() }
}

#[test]
fn tokens_that_change_in_place_are_served_as_a_whole_state_says() {
    let folder = tempfile::tempdir().unwrap();
    let (mut held, current) = (held(folder.path()), Current::new());
    let (first, second, third) = (token("local:user/zoe"), token("local:user/zoe"), token("local:user/zoe"));
    let Push::Whole(text) = whole(3, ONE) else { unreachable!() };
    let mut begun = Document::parse(text.as_bytes()).unwrap();
    let zoe = r#"{"principal":"local:user/zoe","name":"zoe","disabled":false,"groups":[]}"#;
    begun.users = vec![serde_json::from_str(zoe).unwrap()];
    begun.tokens = vec![first.clone()];
    begun.assertions = Some(signed(1, &[&first]));
    held.take_up(Push::Whole(serde_json::to_string(&begun).unwrap()), &current).1.unwrap();
    let ids = [&first, &second, &third].map(|token| token.id.clone());
    let served = |current: &Current| {
        let tables = current.tables().unwrap();
        let tokens = ids.clone().map(|id| {
            let token = tables.token(&id).map(|token| format!("{token:?}"));
            // Of what is not there a signature says nothing.
            let asserted = token.is_some().then(|| tables.assertion(&id).map(|(at, signed)| (*at, *signed)));
            (token, asserted)
        });
        (tables.revision, tables.stale_at, tokens)
    };
    let mut change = |tokens: Changes<Token>, assertions: Option<Assertions>, in_place: bool, what: &str| {
        let Push::Delta(delta) = delta(held.revision().unwrap(), held.revision().unwrap() + 1, "") else {
            unreachable!()
        };
        let before = current.tables().unwrap();
        let delta = Delta { tokens, assertions, ..*delta };
        let taken_up = held.take_up(Push::Delta(Box::new(delta)), &current).1;
        let kept = Saved::open(folder.path()).unwrap().1.unwrap().unwrap();
        assert_eq!(Some(kept.revision), held.revision(), "{what}");
        let anew = Current::new();
        anew.take_up(Snapshot::try_from(kept).unwrap(), SystemTime::now()).unwrap();
        assert_eq!(served(&current), served(&anew), "{what}");
        assert_eq!(before.shares_with(&current.tables().unwrap()), in_place, "{what}");
        taken_up
    };
    let put = |tokens: &[&Token]| Changes { put: tokens.iter().copied().cloned().collect(), deleted: vec![] };
    let gone = |tokens: &[&Token]| {
        let deleted = tokens.iter().map(|token| token.id.to_string()).collect();
        Changes { put: vec![], deleted }
    };
    change(put(&[&second]), Some(signed(1, &[&second])), true, "one more").unwrap();
    let narrowed = Token { scope: TokenScope::Clusters(vec!["c-1".into()]), ..second.clone() };
    change(put(&[&narrowed]), Some(signed(1, &[&narrowed])), true, "for less").unwrap();
    change(put(&[&second]), None, true, "as it was, with the signature before").unwrap();
    change(put(&[&third]), None, true, "one that nobody signed").unwrap();
    change(gone(&[&first, &third]), None, true, "two go").unwrap();
    change(Changes::default(), None, true, "nothing").unwrap();
    change(put(&[&first]), Some(signed(1, &[&first])), true, "one comes back").unwrap();
    change(Changes::default(), Some(signed(2, &[&first, &second])), false, "all are signed anew").unwrap();
    change(put(&[&third]), Some(signed(2, &[&third])), true, "and one more").unwrap();
    for (unsound, why) in [
        (token("local:user/nobody"), "tokens[0].user: no such user"),
        (Token { scope: TokenScope::Clusters(vec!["c-9".into()]), ..first.clone() }, "no cluster \"c-9\""),
        (Token { scope: TokenScope::Clusters(vec![]), ..first.clone() }, "names no cluster"),
    ] {
        let refused = change(put(&[&unsound]), None, true, why).unwrap_err();
        assert!(format!("{refused:#}").contains(why), "{refused:#}");
    }
    let twice = change(put(&[&first, &first]), None, true, "one twice").unwrap_err();
    assert!(format!("{twice:#}").contains("given twice"), "{twice:#}");
}
