use std::sync::Arc;

use drover_api::kinds::{Domain, TokenKind, TokenScope};
use drover_api::roster::Roster;
use drover_api::snapshot::Document;
use drover_api::token;
use jiff::SignedDuration;

use super::*;
use crate::authority::Authority;
use crate::objects::Objects;
use crate::seal::Seal;
use crate::store::{Expected, Sqlite, Value};

const STALENESS: Duration = Duration::from_secs(3600);
const DEADLINE: Duration = Duration::from_secs(20);

struct Fixture {
    store: Arc<Sqlite>,
    objects: Objects,
    _folder: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Sqlite::open(&folder.path().join("store")).unwrap());
    let objects = Objects::new(store.clone(), Seal::new(&[7; 32]));
    Fixture { store, objects, _folder: folder }
}

fn cluster(name: &str) -> Cluster {
    Cluster {
        name: name.to_owned(),
        id: format!("c-{name}"),
        projects: Default::default(),
        groups_listed: None,
    }
}

fn viewer(name: &str, cluster: &str) -> Binding {
    Binding {
        name: name.to_owned(),
        principal: "local:user/7".to_owned(),
        role: "cluster-viewer".to_owned(),
        domain: Domain::Cluster(format!("c-{cluster}")),
        expires_at: None,
    }
}

impl Fixture {
    async fn load(&self) -> Arc<Snapshots> {
        let now = Timestamp::now();
        Arc::new(Snapshots::load(&*self.store, self.signers().await, STALENESS, now).await.unwrap())
    }

    async fn signers(&self) -> Signers {
        let authority = Authority::load(&self.objects, STALENESS).await.unwrap();
        Signers::new(self.objects.clone(), Arc::new(authority))
    }

    async fn put<K: crate::objects::Kept>(&self, spec: &K) -> Revision {
        self.objects.create(spec, None).await.unwrap().metadata.revision
    }

    async fn delete(&self, cluster: &str) -> Revision {
        let found = self.objects.get::<Cluster>(cluster).await.unwrap().unwrap();
        self.objects.delete::<Cluster>(cluster, found.object.metadata.revision).await.unwrap()
    }
}

fn document(snapshots: &Snapshots) -> Document {
    serde_json::from_str(&snapshots.whole().unwrap().1).unwrap()
}

/// The document as a gateway has it that was at another, order aside.
fn caught_up(mut from: Document, snapshots: &Snapshots) -> serde_json::Value {
    from.apply(snapshots.delta(from.revision, None).unwrap()).unwrap();
    from.clusters.sort_by(|one, other| one.name.cmp(&other.name));
    from.rosters.sort_by(|one, other| one.cluster.cmp(&other.cluster));
    serde_json::to_value(&from).unwrap()
}

async fn published(snapshots: &Snapshots, revision: Revision) {
    let mut published = snapshots.published();
    let reached = published.wait_for(|published| published.revision >= revision);
    tokio::time::timeout(DEADLINE, reached).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_delta_makes_of_any_earlier_state_the_whole_one() {
    let fixture = fixture();
    fixture.put(&cluster("one")).await;
    let before = document(&*fixture.load().await);
    fixture.put(&cluster("two")).await;
    let middle = document(&*fixture.load().await);
    fixture.put(&cluster("three")).await;
    fixture.delete("one").await;
    fixture.delete("two").await;
    fixture.put(&cluster("two")).await;
    // As after a restart, which knows of deletions what the store does.
    let snapshots = fixture.load().await;
    let whole = serde_json::to_value(document(&snapshots)).unwrap();
    let mut sorted: Document = serde_json::from_value(whole).unwrap();
    sorted.clusters.sort_by(|one, other| one.name.cmp(&other.name));
    let whole = serde_json::to_value(sorted).unwrap();
    assert_eq!(caught_up(before, &snapshots), whole);
    assert_eq!(caught_up(middle, &snapshots), whole);
    let ahead = snapshots.published().borrow().revision + 1;
    assert!(snapshots.delta(ahead, None).is_none(), "a store that went back asks for the whole state");
}

#[tokio::test]
async fn what_is_written_is_published_and_what_is_not_sound_is_set_aside_until_it_is() {
    let fixture = fixture();
    let snapshots = fixture.load().await;
    let cancelled = CancellationToken::new();
    let follow = tokio::spawn({
        let (snapshots, store, cancelled) = (snapshots.clone(), fixture.store.clone(), cancelled.clone());
        async move { snapshots.follow(&*store, cancelled).await }
    });
    let revision = fixture.put(&cluster("one")).await;
    published(&snapshots, revision).await;
    let before = document(&snapshots);
    assert_eq!(before.clusters.len(), 1);

    // Past the API: two clusters with one id. The elder stays, and what is written after is published.
    let twin = Cluster { name: "a-twin".to_owned(), ..cluster("one") };
    fixture.put(&twin).await;
    let more = fixture.put(&viewer("viewers", "one")).await;
    published(&snapshots, more).await;
    let with_twin = document(&snapshots);
    let names =
        |document: &Document| document.clusters.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    assert_eq!((names(&with_twin), with_twin.bindings.len()), (vec!["one".to_owned()], 1));
    assert_eq!(snapshots.state().aside().summary().as_deref(), Some("1 Cluster"));
    assert!(snapshots.is_whole());
    assert!(snapshots.delta(before.revision, None).is_none(), "no delta tells what is set aside");
    // As a start after it has it; and a gateway that was told has no need of the whole.
    assert_eq!(names(&document(&*fixture.load().await)), ["one"]);
    assert!(fixture.load().await.delta(more + 1, None).is_some());

    let gone = fixture.delete("one").await;
    published(&snapshots, gone).await;
    assert_eq!(names(&document(&snapshots)), ["a-twin"], "it is sound without the other");
    assert_eq!(snapshots.state().aside().summary(), None);
    assert!(snapshots.delta(with_twin.revision, None).is_none(), "no delta tells what is back");
    // Also a start that never saw it aside: the twin changed last before the gateway was told.
    assert!(fixture.load().await.delta(with_twin.revision, None).is_none());
    cancelled.cancel();
    tokio::time::timeout(DEADLINE, follow).await.unwrap().unwrap();
}

/// Records that no program of ours wrote: each is set aside by itself, at a start too.
#[tokio::test]
async fn regression_a_store_with_unsound_objects_is_served_from_without_them() {
    let fixture = fixture();
    let raw = async |kind: &'static str, key: &str, spec: &str| {
        let value = Value { format: 1, spec: spec.into(), secret: None };
        fixture.store.put(kind, key, value, Expected::Absent).await.unwrap();
    };
    fixture.put(&cluster("one")).await;
    fixture.put(&user("zoe", false)).await;
    fixture.put(&token_of("local:user/zoe", TokenScope::All)).await;
    fixture.put(&Binding { principal: "local:user/zoe".into(), ..viewer("zoes", "one") }).await;
    raw(User::KIND, "yan", r#"{"principal":"local:user/yan","name":"yan","display_name":" Yan"}"#).await;
    fixture.put(&token_of("local:user/yan", TokenScope::All)).await;
    raw(User::KIND, "xena", "{}").await;
    raw(Role::KIND, "broken", "{").await;
    raw(Enrolment::KIND, "e1", "{}").await;
    fixture
        .put(&Binding {
            role: "broken".into(),
            principal: "local:user/zoe".into(),
            ..viewer("of-broken", "one")
        })
        .await;
    raw(Binding::KIND, "what", r#"{"principal":"local:user/7","denies":"something"}"#).await;
    let snapshots = fixture.load().await;
    let document = document(&snapshots);
    let summary = snapshots.state().aside().summary();
    assert_eq!(summary.as_deref(), Some("1 Role, 1 RoleBinding, 1 Token, 2 User"));
    assert_eq!((document.users.len(), document.tokens.len()), (1, 1));
    assert_eq!(document.enrolments, Some(Default::default()));
    let role = |name: &str| document.roles.iter().find(|role| role.name == name).unwrap();
    assert!(role("broken").rules.iter().all(|rule| rule.effect == drover_api::kinds::Effect::Deny));
    let bound: Vec<_> = document.bindings.iter().map(|one| (one.name.as_str(), one.role.as_str())).collect();
    assert_eq!(
        bound,
        [("of-broken", "broken"), ("zoes", "cluster-viewer"), ("what", drover_api::snapshot::SET_ASIDE_ROLE)]
    );
    // The next login of theirs mends it.
    let known = snapshots.state().user("local:user/yan").unwrap();
    assert!(snapshots.state().published_user("local:user/yan").is_none());
    let mended = User { display_name: Some("Yan".into()), ..known.spec };
    fixture.objects.update(known.metadata.revision, &mended, None).await.unwrap();
    let summary = fixture.load().await.state().aside().summary();
    assert_eq!(summary.as_deref(), Some("1 Role, 1 RoleBinding, 1 User"));
}

#[tokio::test(start_paused = true)]
async fn what_is_published_is_renewed_at_half_of_its_time() {
    let fixture = fixture();
    let snapshots = fixture.load().await;
    let first = *snapshots.published().borrow();
    let mut published = snapshots.published();
    let cancelled = CancellationToken::new();
    let (follow, renewed) = (snapshots.follow(&*fixture.store, cancelled.clone()), async {
        let begin = tokio::time::Instant::now();
        published.changed().await.unwrap();
        assert_eq!(begin.elapsed(), STALENESS / 2);
        cancelled.cancel();
        *published.borrow()
    });
    let ((), renewed) = tokio::join!(follow, renewed);
    assert_eq!(renewed.revision, first.revision);
    assert!(renewed.issued_at > first.issued_at);
    let delta = snapshots.delta(first.revision, None).unwrap();
    assert!(delta.is_renewal() && delta.issued_at == renewed.issued_at);
}

#[tokio::test]
async fn a_store_with_an_object_of_a_newer_program_is_not_served_from() {
    let fixture = fixture();
    let spec = serde_json::to_vec(&cluster("one")).unwrap();
    let newer = Value { format: Cluster::FORMAT + 1, spec, secret: None };
    fixture.store.put(Cluster::KIND, "one", newer, Expected::Absent).await.unwrap();
    let refused =
        Snapshots::load(&*fixture.store, fixture.signers().await, STALENESS, Timestamp::now()).await;
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("newer program"), "{refused}");
}

#[tokio::test]
async fn what_is_signed_follows_what_changes_and_nothing_else_is_signed_anew() {
    let fixture = fixture();
    fixture.put(&cluster("one")).await;
    fixture.put(&cluster("two")).await;
    fixture.put(&viewer("viewers", "one")).await;
    let zoe = |groups: &[&str], disabled| User {
        principal: "local:user/7".to_owned(),
        name: "zoe".to_owned(),
        display_name: None,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        disabled,
    };
    let mut at = fixture.put(&zoe(&[], false)).await;
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let token = token_of("local:user/7", TokenScope::All);
        fixture.put(&token).await;
        tokens.push(token);
    }
    let snapshots = fixture.load().await;
    let first = document(&snapshots);
    let roster = |document: &Document, cluster: &str| -> Roster {
        let signed = document.rosters.iter().find(|roster| roster.cluster == cluster).unwrap();
        serde_json::from_str(&signed.payload).unwrap()
    };
    let groups = &roster(&first, "c-one").subjects["local:user/7"].role_groups;
    assert_eq!(groups.iter().collect::<Vec<_>>(), ["drover:cluster-viewer"]);
    assert!(roster(&first, "c-two").subjects.is_empty());
    let signed = |document: &Document| document.assertions.clone().unwrap().signatures;
    assert_eq!(signed(&first).len(), 2);

    let cancelled = CancellationToken::new();
    let follow = tokio::spawn({
        let (snapshots, store, cancelled) = (snapshots.clone(), fixture.store.clone(), cancelled.clone());
        async move { snapshots.follow(&*store, cancelled).await }
    });
    let told_at = Some(snapshots.published().borrow().issued_at);
    let now = async |spec: User, at: Revision| {
        let revision = fixture.objects.update(at, &spec, None).await.unwrap().metadata.revision;
        published(&snapshots, revision).await;
        (document(&snapshots), snapshots.delta(first.revision, told_at).unwrap(), revision)
    };
    let (changed, delta, revision) = now(zoe(&["local:group/ops"], false), at).await;
    at = revision;
    assert_eq!(changed.assertions.as_ref().unwrap().epoch, first.assertions.as_ref().unwrap().epoch);
    assert!(tokens.iter().all(|token| signed(&changed)[&token.id] != signed(&first)[&token.id]));
    assert_eq!(delta.assertions.unwrap().signatures, signed(&changed));
    assert!(delta.rosters.is_empty(), "who holds what is as it was");

    let (disabled, delta, _) = now(zoe(&["local:group/ops"], true), at).await;
    assert!(signed(&disabled).is_empty(), "nobody speaks for who is disabled");
    assert_eq!(delta.rosters.put.len(), 2);
    assert!(roster(&disabled, "c-two").disabled.contains("local:user/7"));

    // A gateway that was told of nothing gets all that is signed.
    let all = snapshots.delta(disabled.revision, None).unwrap();
    assert_eq!((all.rosters.put.len(), all.assertions.is_some()), (2, true));
    let none = snapshots.delta(disabled.revision, Some(snapshots.published().borrow().issued_at)).unwrap();
    assert!(none.rosters.is_empty() && none.assertions.is_none());
    cancelled.cancel();
    tokio::time::timeout(DEADLINE, follow).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_signing_key_is_replaced_while_its_certificate_is_good_and_then_forgotten() {
    let fixture = fixture();
    let signers = fixture.signers().await;
    let begin = Timestamp::now();
    let day = |days: i64| begin + SignedDuration::from_hours(24 * days);
    let first = signers.current(begin).await.unwrap();
    let same = signers.current(day(59)).await.unwrap();
    assert_eq!((first.signer.id(), same.certificates.len()), (same.signer.id(), 1));
    let second = signers.current(day(61)).await.unwrap();
    assert_ne!(second.signer.id(), first.signer.id());
    assert_eq!(second.certificates.len(), 2, "what the first signed is good still");
    let later = signers.current(day(91)).await.unwrap();
    assert_eq!((later.signer.id(), later.certificates.len()), (second.signer.id(), 1));
    let record = fixture.objects.store().list("SigningKey").await.unwrap();
    assert_eq!(record.len(), 1);
    assert!(!String::from_utf8_lossy(&record[0].value.spec).contains("seed"), "the seed is sealed");
}

fn token_of(user: &str, scope: TokenScope) -> Token {
    let made = token::generate();
    Token {
        id: made.id,
        hash: made.hash,
        proof_key: made.proof_key,
        user: user.to_owned(),
        kind: TokenKind::Bot,
        scope,
        expires_at: Timestamp::now() + SignedDuration::from_hours(1),
        idle_s: Some(7200),
        session: None,
        made_by: None,
        jwt_ends_at: None,
    }
}

fn user(name: &str, disabled: bool) -> User {
    let (principal, name) = (format!("local:user/{name}"), name.to_owned());
    User { principal, name, display_name: None, groups: vec![], disabled }
}

/// Without the signatures of tokens that are gone.
fn in_order(mut document: Document) -> serde_json::Value {
    document.tokens.sort_by(|one, other| one.id.cmp(&other.id));
    document.users.sort_by(|one, other| one.name.cmp(&other.name));
    document.rosters.sort_by(|one, other| one.cluster.cmp(&other.cluster));
    let there = |id: &drover_api::token::TokenId| document.tokens.iter().any(|token| token.id == *id);
    let mut assertions = document.assertions.take().unwrap();
    assertions.signatures.retain(|id, _| there(id));
    document.assertions = Some(assertions);
    serde_json::to_value(&document).unwrap()
}

/// What happens to tokens one after the other, and how much of it may be published in place.
#[tokio::test]
async fn tokens_that_change_in_place_leave_what_a_state_made_anew_has() {
    let fixture = fixture();
    fixture.put(&cluster("one")).await;
    fixture.put(&user("zoe", false)).await;
    fixture.put(&user("yan", true)).await;
    let first = token_of("local:user/zoe", TokenScope::All);
    fixture.put(&first).await;
    let snapshots = fixture.load().await;
    let began = snapshots.published().borrow().revision;
    let mut watch = Watch::new(&*fixture.store, began);
    let (mut held_back, mut earlier) = (Vec::new(), Vec::new());
    let mut published = async |in_place: bool, what: &str| {
        held_back.extend(watch.next().await.unwrap());
        let (now, before) = (Timestamp::now(), snapshots.state().clone());
        let anew =
            next(before.clone(), &held_back, snapshots.checks(now, Some(snapshots.authorizer()))).await;
        assert_eq!(snapshots.publish_in_place(&held_back, now), in_place, "{what}");
        let all = |state: &State| {
            let deltas =
                (began..=state.revision).map(|from| state.delta(from, Some(now), snapshots.freshness()));
            let deltas = deltas.map(|delta| serde_json::to_value(delta).unwrap()).collect::<Vec<_>>();
            (serde_json::to_value(state.signed_document(snapshots.freshness())).unwrap(), deltas)
        };
        if in_place {
            assert_eq!(all(&snapshots.state()), all(&anew.unwrap().0), "{what}");
            held_back.clear();
        } else {
            assert_eq!(all(&snapshots.state()), all(&before), "{what}");
            snapshots.publish(&mut held_back, now).await;
        }
        // Whoever was there at any time before, and was told then, has the same now.
        let whole = document(&snapshots);
        assert!(whole.tokens.iter().all(|token| token.idle_s.is_none()), "gateways have no use for it");
        earlier.push(whole.clone());
        for then in &earlier {
            let mut then = then.clone();
            let Some(delta) = snapshots.delta(then.revision, Some(then.issued_at)) else {
                assert!(then.revision < snapshots.state().oldest, "{what}: only over what was set aside");
                continue;
            };
            then.apply(delta).unwrap();
            assert_eq!(in_order(then), in_order(whole.clone()), "{what}");
        }
    };
    let objects = &fixture.objects;
    let second = token_of("local:user/zoe", TokenScope::Clusters(vec!["c-one".into()]));
    let made = fixture.put(&second).await;
    published(true, "one more").await;
    let later = Token { expires_at: second.expires_at + SignedDuration::from_hours(1), ..second.clone() };
    let changed = objects.update(made, &later, None).await.unwrap().metadata.revision;
    published(true, "another end").await;
    fixture.put(&token_of("local:user/yan", TokenScope::All)).await;
    published(true, "of somebody who is disabled").await;
    objects.delete::<Token>(second.id.as_str(), changed).await.unwrap();
    let third = token_of("local:user/zoe", TokenScope::All);
    fixture.put(&third).await;
    published(true, "one goes and one comes").await;
    let secret = crate::objects::GrantSecret { token: None };
    let grant = crate::objects::Grant { principal: "corp:user/1".into(), known_at: Timestamp::now() };
    objects.create(&grant, Some(&secret)).await.unwrap();
    published(true, "what gateways do not know").await;
    fixture.put(&user("xena", false)).await;
    fixture.put(&token_of("local:user/xena", TokenScope::All)).await;
    published(false, "a user comes with it").await;
    fixture.put(&token_of("local:user/xena", TokenScope::All)).await;
    published(true, "of a user who has just come").await;
    let listed = Cluster { groups_listed: Some(["local:group/ops".to_owned()].into()), ..cluster("two") };
    fixture.put(&listed).await;
    published(false, "what is signed says something else").await;
    fixture.put(&token_of("local:user/zoe", TokenScope::All)).await;
    published(true, "as that says").await;
    let nobodys = token_of("local:user/nobody", TokenScope::All);
    let made = fixture.put(&nobodys).await;
    published(false, "of nobody").await;
    fixture.put(&token_of("local:user/zoe", TokenScope::All)).await;
    published(true, "held back by nothing").await;
    objects.delete::<Token>(nobodys.id.as_str(), made).await.unwrap();
    published(false, "and that one goes").await;
    let nowhere = token_of("local:user/zoe", TokenScope::Clusters(vec!["c-none".into()]));
    fixture.put(&nowhere).await;
    published(false, "for a cluster that is not there").await;
}

#[tokio::test]
async fn more_changes_than_fit_in_place_go_the_whole_way_and_old_deletions_are_forgotten() {
    let fixture = fixture();
    let snapshots = fixture.load().await;
    let began = snapshots.published().borrow().revision;
    let deletions = |from: Revision, count: usize| -> Vec<_> {
        let deleted = |revision| Change::Deleted {
            kind: Token::KIND.to_owned(),
            key: format!("{revision:012}"),
            revision,
        };
        (from + 1..).take(count).map(deleted).collect()
    };
    assert!(!snapshots.publish_in_place(&deletions(began, TOKENS_IN_PLACE_MAX + 1), Timestamp::now()));
    assert_eq!(snapshots.published().borrow().revision, began);
    let mut batches = 0;
    while snapshots.delta(began, None).is_some() {
        let at = snapshots.published().borrow().revision;
        assert!(snapshots.publish_in_place(&deletions(at, TOKENS_IN_PLACE_MAX), Timestamp::now()));
        batches += 1;
        assert!(batches <= 20, "deletions are kept for ever");
    }
    assert!(batches > 10, "{batches}: deletions within the limit were forgotten");
}
