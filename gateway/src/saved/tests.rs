use std::os::unix::fs::MetadataExt;

use super::*;

fn document() -> Document {
    let text = r#"{"format":1,"reader_min":1,"revision":3,"issued_at":"2026-11-25T12:00:00Z","max_staleness_s":60,
        "clusters":[],"users":[],"tokens":[],"roles":[],"bindings":[]}"#;
    serde_json::from_str(text).unwrap()
}

fn delta(from: u64, revision: u64, name: &str) -> Delta {
    let text = format!(
        r#"{{"format":1,"reader_min":1,"from":{from},"revision":{revision},"issued_at":"2026-11-25T13:00:00Z",
        "max_staleness_s":60,"clusters":{{"put":[{{"name":"{name}","id":"c-{name}"}}]}}}}"#
    );
    Delta::parse(text.as_bytes()).unwrap()
}

fn read(folder: &Path) -> Option<Document> {
    Saved::open(folder).unwrap().1.unwrap()
}

fn names(document: &Document) -> Vec<&str> {
    document.clusters.iter().map(|cluster| cluster.name.as_str()).collect()
}

fn append(saved: &mut Saved, document: &mut Document, delta: Delta) {
    document.apply(delta.clone()).unwrap();
    saved.append(&delta, document).unwrap();
}

#[test]
fn what_was_kept_is_there_again_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let (mut saved, nothing) = Saved::open(folder.path()).unwrap();
    assert!(nothing.unwrap().is_none());
    let mut document = document();
    saved.keep(&document).unwrap();
    append(&mut saved, &mut document, delta(3, 4, "one"));
    append(&mut saved, &mut document, delta(4, 6, "two"));
    drop(saved);
    let (mut saved, read_again) = Saved::open(folder.path()).unwrap();
    let mut read_again = read_again.unwrap().unwrap();
    assert_eq!((read_again.revision, names(&read_again)), (6, vec!["one", "two"]));
    append(&mut saved, &mut read_again, delta(6, 7, "three"));
    assert_eq!(names(&read(folder.path()).unwrap()), ["one", "two", "three"]);
    for file in ["snapshot.json", "deltas.jsonl"] {
        assert_eq!(std::fs::metadata(folder.path().join(file)).unwrap().mode() & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_delta_that_was_cut_off_is_forgotten_and_the_next_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (mut saved, _) = Saved::open(folder.path()).unwrap();
    let mut document = document();
    saved.keep(&document).unwrap();
    append(&mut saved, &mut document, delta(3, 4, "one"));
    drop(saved);
    let journal = folder.path().join("deltas.jsonl");
    let whole = std::fs::read(&journal).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&journal, [&whole, &whole[..cut]].concat()).unwrap();
        let (mut saved, read_again) = Saved::open(folder.path()).unwrap();
        let mut read_again = read_again.unwrap().unwrap();
        assert_eq!(read_again.revision, 4, "cut at {cut}");
        append(&mut saved, &mut read_again, delta(4, 5, "two"));
        assert_eq!(names(&read(folder.path()).unwrap()), ["one", "two"], "cut at {cut}");
    }
}

#[test]
fn a_process_that_ends_between_a_whole_state_and_its_empty_journal_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut saved, _) = Saved::open(folder.path()).unwrap();
    let mut document = document();
    saved.keep(&document).unwrap();
    append(&mut saved, &mut document, delta(3, 4, "one"));
    let journal = std::fs::read(folder.path().join("deltas.jsonl")).unwrap();
    saved.keep(&document).unwrap();
    std::fs::write(folder.path().join("deltas.jsonl"), journal).unwrap();
    assert_eq!(names(&read(folder.path()).unwrap()), ["one"]);
}

#[test]
fn a_state_that_cannot_be_used_is_said_and_not_guessed_at() {
    let folder = tempfile::tempdir().unwrap();
    let (mut saved, _) = Saved::open(folder.path()).unwrap();
    saved.keep(&document()).unwrap();
    std::fs::write(folder.path().join("deltas.jsonl"), "{}\n").unwrap();
    assert!(Saved::open(folder.path()).unwrap().1.is_err());
    let gap = serde_json::to_string(&delta(5, 6, "one")).unwrap() + "\n";
    std::fs::write(folder.path().join("deltas.jsonl"), gap).unwrap();
    assert!(Saved::open(folder.path()).unwrap().1.is_err());
    std::fs::write(folder.path().join("snapshot.json"), "{").unwrap();
    assert!(Saved::open(folder.path()).unwrap().1.is_err());
}
