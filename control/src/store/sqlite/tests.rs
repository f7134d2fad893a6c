//! What only one file can get wrong: other files, other schemas, and a process that dies while it writes.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::Rng;

use super::*;
use crate::store::suite;

const KIND: &str = "Thing";
const KILLS: usize = 200;
/// Of one writer, should nobody kill it.
const WRITES_MAX: u64 = 10_000;
/// Names the store that this program, started again by its own test, writes to until it is killed.
const VICTIM: &str = "DROVER_TEST_STORE_VICTIM";

fn value(number: u64) -> Value {
    // Over some pages, so that a write that was torn shows.
    Value { format: 1, spec: number.to_string().repeat(2000).into_bytes(), secret: None }
}

#[tokio::test]
async fn passes_what_every_store_has_to() {
    let folder = tempfile::tempdir().unwrap();
    suite::pass(&Sqlite::open(&folder.path().join("store")).unwrap()).await;
}

#[tokio::test]
async fn keeps_everything_over_a_restart_and_goes_on_counting() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store");
    let store = Sqlite::open(&file).unwrap();
    let first = store.put(KIND, "a", value(1), Expected::Absent).await.unwrap();
    drop(store);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let store = Sqlite::open(&file).unwrap();
    assert_eq!(*store.revision().borrow(), first.revision);
    assert_eq!(store.list(KIND).await.unwrap(), std::slice::from_ref(&first));
    let second = store.put(KIND, "b", value(2), Expected::Absent).await.unwrap();
    assert_eq!(second.revision, first.revision + 1);
}

#[test]
fn refuses_other_files_newer_schemas_and_a_second_process() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store");
    let open = Sqlite::open(&file).unwrap();
    assert!(matches!(Sqlite::open(&file), Err(StoreError::Locked)));
    drop(open);

    let connection = Connection::open(&file).unwrap();
    connection.pragma_update(None, "user_version", SCHEMA + 1).unwrap();
    drop(connection);
    assert!(matches!(Sqlite::open(&file), Err(StoreError::TooNew { found: 2, known: 1 })));

    let other = folder.path().join("other");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    assert!(matches!(Sqlite::open(&other), Err(StoreError::Foreign)));
    let text = folder.path().join("text");
    std::fs::write(&text, "not a database, and long enough to have a header of its own".repeat(20)).unwrap();
    assert!(matches!(Sqlite::open(&text), Err(StoreError::Foreign)));
}

#[tokio::test]
async fn forgets_the_oldest_deletions_and_says_so_to_who_asks_from_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("store")).unwrap();
    let fill = move |transaction: &Transaction<'_>, _| {
        for number in 1..=DELETIONS_MAX {
            let deleted = params![KIND, format!("d{number}"), number];
            transaction.execute("INSERT INTO deletions VALUES (?1, ?2, ?3)", deleted)?;
        }
        set_number(transaction, "revision", unsigned(DELETIONS_MAX))
    };
    store.write(fill).await.unwrap();
    assert!(store.changes(0, 1).await.is_ok());
    let last = store.put(KIND, "a", value(1), Expected::Absent).await.unwrap();
    store.delete(KIND, "a", last.revision).await.unwrap();
    assert!(matches!(store.changes(0, 1).await, Err(StoreError::Compacted(0))));
    assert_eq!(store.oldest().await.unwrap(), 1);
    assert!(store.changes(1, 1).await.is_ok());
}

/// Acknowledged means on the disk, and nothing is there by halves, whenever the process is killed.
#[tokio::test]
async fn a_process_that_is_killed_while_it_writes_loses_nothing_it_acknowledged() {
    if let Some(file) = std::env::var_os(VICTIM) {
        return write_until_killed(Path::new(&file)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store");
    let mut acknowledged = 0;
    for _ in 0..KILLS {
        let wait = Duration::from_micros(rand::rng().random_range(0..20_000));
        let heard = tokio::task::spawn_blocking({
            let file = file.clone();
            move || kill_a_writer(&file, wait)
        });
        let heard = tokio::time::timeout(Duration::from_secs(20), heard).await.unwrap().unwrap();
        let store = Sqlite::open(&file).unwrap();
        let kept = store.list(KIND).await.unwrap();
        let numbers: Vec<u64> = kept.iter().map(|record| number_of(&record.key)).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        for (record, number) in kept.iter().zip(1..) {
            assert_eq!(record.value, value(number));
        }
        let written = numbers.len() as u64;
        assert!(
            heard.is_none_or(|heard| heard <= written),
            "{heard:?} were acknowledged, {written} are there"
        );
        assert!(written >= acknowledged);
        acknowledged = written;
    }
    assert!(acknowledged > KILLS as u64, "only {acknowledged} writes were there to lose");
}

fn number_of(key: &str) -> u64 {
    key.parse().unwrap()
}

async fn write_until_killed(file: &Path) {
    let store = Sqlite::open(file).unwrap();
    let begin = store.list(KIND).await.unwrap().len() as u64;
    for number in begin + 1..begin + WRITES_MAX {
        store.put(KIND, &format!("{number:09}"), value(number), Expected::Absent).await.unwrap();
        println!("\nacknowledged {number}");
    }
}

/// The last number that the writer acknowledged before its end.
fn kill_a_writer(file: &Path, wait: Duration) -> Option<u64> {
    let mut writer = Command::new(std::env::current_exe().unwrap());
    writer.args(["--exact", "--nocapture"]);
    writer
        .arg("store::sqlite::tests::a_process_that_is_killed_while_it_writes_loses_nothing_it_acknowledged");
    let mut writer = writer.env(VICTIM, file).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let number = |line: &str| line.strip_prefix("acknowledged ").map(number_of);
    let first = lines.by_ref().find_map(|line| number(&line.unwrap()));
    std::thread::sleep(wait);
    writer.kill().unwrap();
    writer.wait().unwrap();
    lines.filter_map(|line| number(&line.unwrap())).last().or(first)
}
