//! What every store has to pass.

use super::*;

const KIND: &str = "Thing";
const OTHER: &str = "Other";

fn value(text: &str) -> Value {
    Value { format: 1, spec: text.as_bytes().to_vec(), secret: None }
}

fn conflicts<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Option<Revision> {
    match result {
        Err(StoreError::Conflict { found, .. }) => found,
        other => panic!("a conflict was expected: {other:?}"),
    }
}

pub(super) async fn pass(store: &dyn Store) {
    keeps_what_was_put_and_only_that(store).await;
    refuses_writes_made_from_another_revision(store).await;
    tells_changes_in_order_from_any_revision(store).await;
    wakes_a_watch_that_waits(store).await;
}

async fn keeps_what_was_put_and_only_that(store: &dyn Store) {
    assert_eq!(store.get(KIND, "a").await.unwrap(), None);
    assert_eq!(store.oldest().await.unwrap(), 0);
    let secret = Value { secret: Some(vec![0, 1, 255]), ..value("b's") };
    let b = store.put(KIND, "b", secret.clone(), Expected::Absent).await.unwrap();
    let a = store.put(KIND, "a", value("a's"), Expected::Absent).await.unwrap();
    store.put(OTHER, "a", value("another's"), Expected::Absent).await.unwrap();
    assert_eq!((b.value.clone(), b.kind.as_str(), b.key.as_str()), (secret, KIND, "b"));
    assert!(a.revision > b.revision);
    assert_eq!(store.get(KIND, "b").await.unwrap().as_ref(), Some(&b));
    assert_eq!(store.list(KIND).await.unwrap(), [a.clone(), b.clone()]);

    let changed = store.put(KIND, "a", value("more"), Expected::Revision(a.revision)).await.unwrap();
    assert_eq!((changed.created_at, changed.value.clone()), (a.created_at, value("more")));
    store.delete(KIND, "b", b.revision).await.unwrap();
    assert_eq!(store.list(KIND).await.unwrap(), [changed]);
    assert_eq!(store.get(OTHER, "a").await.unwrap().unwrap().value, value("another's"));
}

async fn refuses_writes_made_from_another_revision(store: &dyn Store) {
    let old = store.put(KIND, "c", value("1"), Expected::Absent).await.unwrap();
    let current = store.put(KIND, "c", value("2"), Expected::Revision(old.revision)).await.unwrap();
    let before = *store.revision().borrow();
    let found = Some(current.revision);
    assert_eq!(conflicts(store.put(KIND, "c", value("3"), Expected::Absent).await), found);
    assert_eq!(conflicts(store.put(KIND, "c", value("3"), Expected::Revision(old.revision)).await), found);
    assert_eq!(conflicts(store.delete(KIND, "c", old.revision).await), found);
    assert_eq!(conflicts(store.put(KIND, "none", value("3"), Expected::Revision(1)).await), None);
    assert_eq!(conflicts(store.delete(KIND, "none", 1).await), None);
    assert_eq!(store.get(KIND, "c").await.unwrap(), Some(current));
    assert_eq!(*store.revision().borrow(), before);
}

async fn tells_changes_in_order_from_any_revision(store: &dyn Store) {
    let from = *store.revision().borrow();
    let one = store.put(KIND, "one", value("1"), Expected::Absent).await.unwrap();
    let two = store.put(OTHER, "two", value("2"), Expected::Absent).await.unwrap();
    let deleted = store.delete(KIND, "one", one.revision).await.unwrap();
    let three = store.put(KIND, "three", value("3"), Expected::Absent).await.unwrap();
    let gone = Change::Deleted { kind: KIND.to_owned(), key: "one".to_owned(), revision: deleted };
    let all = [Change::Put(two), gone, Change::Put(three.clone())];
    assert_eq!(store.changes(from, 10).await.unwrap(), all);
    assert_eq!(store.changes(from, 2).await.unwrap(), all[..2]);
    assert_eq!(store.changes(deleted, 10).await.unwrap(), all[2..]);
    assert_eq!(store.changes(three.revision, 10).await.unwrap(), []);

    let again = store.put(KIND, "one", value("again"), Expected::Absent).await.unwrap();
    assert_eq!(store.changes(three.revision, 10).await.unwrap(), [Change::Put(again)]);
    let seen = store.changes(from, 10).await.unwrap();
    assert!(!seen.contains(&all[1]), "an object is told once, as it is: {seen:?}");
}

async fn wakes_a_watch_that_waits(store: &dyn Store) {
    let mut watch = Watch::new(store, *store.revision().borrow());
    let next = watch.next();
    let put = async {
        tokio::task::yield_now().await;
        store.put(KIND, "watched", value("1"), Expected::Absent).await
    };
    let (seen, put) = tokio::join!(next, put);
    assert_eq!(seen.unwrap(), [Change::Put(put.unwrap())]);
}
