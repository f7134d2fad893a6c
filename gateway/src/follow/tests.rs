//! What a gateway takes up of what control pushes, and what it refuses and keeps instead.

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
