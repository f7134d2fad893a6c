use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use drover_api::kinds::{Access, Metadata};
use tokio::sync::Semaphore;

use super::*;
use crate::objects::{Grant, GrantSecret};
use crate::people::tests::provider;
use crate::providers::{Known, Matches, NotSearched};
use crate::rest::tests::served;

const WHO: &str = "corp:user/1";

/// A provider that says one thing: nothing, or a person with what to ask with next.
struct Says(Option<&'static str>);

#[async_trait]
impl Directory for Says {
    async fn find(&self, id: &str, _grant: Option<&str>) -> Result<Found, Unavailable> {
        let Some(next) = self.0 else { return Ok(Found::Unknown) };
        let person =
            Person { id: id.into(), login: "zoe".into(), display_name: None, groups: Default::default() };
        Ok(Found::Known(Box::new(Known { person, grant: Some(next.into()) })))
    }

    async fn search(&self, _text: &str, _max: usize) -> Result<Matches, NotSearched> {
        Ok(Matches::default())
    }

    async fn test(&self, _back: &str) -> Result<(), Unavailable> {
        Ok(())
    }
}

async fn kept(control: &Control, token: Option<&str>, age_s: i64) {
    let known_at = Timestamp::from_second(Timestamp::now().as_second() - age_s).unwrap();
    let secret = GrantSecret { token: token.map(str::to_owned) };
    control.objects.create(&Grant { principal: WHO.into(), known_at }, Some(&secret)).await.unwrap();
}

#[test]
fn half_of_many_gone_at_once_is_not_believed() {
    for (gone, of, beyond) in [
        (0, 0, false),
        (GONE_MAX, GONE_MAX, false),
        (11, 11, true),
        (11, 21, true),
        (11, 22, false),
        (500, 999, true),
    ] {
        assert_eq!(is_beyond_belief(gone, of), beyond, "{gone} of {of}");
    }
}

#[tokio::test]
async fn who_cannot_be_asked_about_is_believed_for_a_day() {
    for (age_s, expected) in [(Some(0), true), (Some(UNKNOWN_S_MAX - 60), true), (Some(UNKNOWN_S_MAX), false)]
        .into_iter()
        .chain([(None, false)])
    {
        let served = served().await;
        if let Some(age_s) = age_s {
            kept(&served.control, None, age_s).await;
        }
        let said = ask(&served.control, &Says(None), WHO).await.unwrap();
        assert_eq!(matches!(said, Said::Nothing), expected, "{age_s:?}");
        assert_eq!(matches!(said, Said::Gone(_)), !expected, "{age_s:?}");
    }
}

#[tokio::test]
async fn what_to_ask_with_next_is_kept_and_what_stays_the_same_is_not_written() {
    let served = served().await;
    let objects = &served.control.objects;
    kept(&served.control, Some("first"), 0).await;
    let revision = async || objects.get::<Grant>(WHO).await.unwrap().unwrap().object.metadata.revision;
    let before = revision().await;
    assert!(matches!(ask(&served.control, &Says(Some("first")), WHO).await.unwrap(), Said::Is(_)));
    assert_eq!(revision().await, before);
    assert!(matches!(ask(&served.control, &Says(Some("second")), WHO).await.unwrap(), Said::Is(_)));
    assert_eq!(people::grant(objects, WHO).await.unwrap().unwrap().0.as_deref(), Some("second"));
}

/// A provider whose answers wait until they are let out; it counts what it was asked.
struct Slow {
    asked: AtomicUsize,
    let_out: Semaphore,
    is_down: bool,
}

impl Slow {
    fn new(is_down: bool) -> Self {
        Self { asked: AtomicUsize::new(0), let_out: Semaphore::new(0), is_down }
    }

    async fn is_asked(&self, times: usize) {
        let asked = async {
            while self.asked.load(Ordering::SeqCst) < times {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap();
    }
}

#[async_trait]
impl Directory for Slow {
    async fn find(&self, id: &str, _grant: Option<&str>) -> Result<Found, Unavailable> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.let_out.acquire().await.unwrap().forget();
        if self.is_down {
            return Err(Unavailable("down".into()));
        }
        let person =
            Person { id: id.into(), login: "zoe".into(), display_name: None, groups: Default::default() };
        Ok(Found::Known(Box::new(Known { person, grant: Some("next".into()) })))
    }

    async fn search(&self, _text: &str, _max: usize) -> Result<Matches, NotSearched> {
        Ok(Matches::default())
    }

    async fn test(&self, _back: &str) -> Result<(), Unavailable> {
        Ok(())
    }
}

fn users(count: usize) -> Vec<Object<User>> {
    let user = |number: usize| Object {
        metadata: Metadata { revision: 1, created_at: Timestamp::now() },
        spec: User {
            principal: format!("corp:user/{number}"),
            name: format!("{number}@corp"),
            display_name: None,
            groups: vec![],
            disabled: false,
        },
    };
    (1..=count).map(user).collect()
}

#[tokio::test]
async fn several_are_asked_about_at_once_and_no_more_of_a_directory_that_is_down() {
    let served = served().await;
    let (slow, never) = (Slow::new(false), CancellationToken::new());
    let all = ask_all(&served.control, &slow, users(ASKED_AT_ONCE * 2), &never);
    let (found, ()) = tokio::join!(all, async {
        // Users who share a lock wait for each other.
        slow.is_asked(2).await;
        slow.let_out.add_permits(1000);
    });
    assert_eq!(found.unwrap().len(), ASKED_AT_ONCE * 2);
    let down = Slow::new(true);
    down.let_out.add_permits(1000);
    let refused = ask_all(&served.control, &down, users(1000), &never).await;
    assert!(matches!(refused, Err(NotRefreshed::Unavailable(_))), "{refused:?}");
    let asked = down.asked.load(Ordering::SeqCst);
    assert!(asked <= IN_VAIN_MAX + 1 + ASKED_AT_ONCE, "asked {asked} times");
}

#[tokio::test]
async fn whoever_is_asked_about_when_control_stops_keeps_what_to_ask_with_next() {
    let served = served().await;
    kept(&served.control, Some("first"), 0).await;
    let (slow, cancelled) = (Slow::new(false), CancellationToken::new());
    let all = ask_all(&served.control, &slow, users(1000), &cancelled);
    let (stopped, ()) = tokio::join!(all, async {
        slow.is_asked(1).await;
        cancelled.cancel();
        slow.let_out.add_permits(1000);
    });
    assert!(matches!(stopped, Err(NotRefreshed::Stopping)), "{stopped:?}");
    assert!(slow.asked.load(Ordering::SeqCst) <= ASKED_AT_ONCE);
    let kept = people::grant(&served.control.objects, WHO).await.unwrap().unwrap();
    assert_eq!(kept.0.as_deref(), Some("next"));
}

#[tokio::test]
async fn regression_an_answer_older_than_a_login_logs_nobody_out() {
    let served = served().await;
    let control = &served.control;
    let provider = provider(Access::Unrestricted, &[]);
    let user = control.objects.create(&users(1).remove(0).spec, None).await.unwrap();
    kept(control, Some("first"), 0).await;
    let said = Said::Gone(people::grant(&control.objects, WHO).await.unwrap());
    people::keep_grant(&control.objects, WHO, Some("second".into())).await.unwrap();
    apply(control, &provider, &[(user.clone(), said)]).await.unwrap();
    assert!(people::grant(&control.objects, WHO).await.unwrap().is_some());
    let said = Said::Gone(people::grant(&control.objects, WHO).await.unwrap());
    apply(control, &provider, &[(user, said)]).await.unwrap();
    assert_eq!(people::grant(&control.objects, WHO).await.unwrap(), None);
}

#[tokio::test]
async fn of_many_at_once_each_becomes_what_the_provider_says() {
    let served = served().await;
    let control = &served.control;
    let provider = provider(Access::Required, &["corp:group/in"]);
    let person = |number: usize, groups: &[&str]| {
        let groups = groups.iter().map(|id| ((*id).to_owned(), Some(format!("The {id}"))));
        let (id, login) = (number.to_string(), format!("{number}"));
        Said::Is(Person { id, login, display_name: None, groups: groups.collect() })
    };
    let says = [
        person(1, &["in", "dev"]),
        person(2, &["dev"]),
        Said::Gone(None),
        Said::Nothing,
        person(5, &["in"]),
        person(6, &["in"]),
    ];
    let mut found = Vec::new();
    for (user, said) in users(says.len()).into_iter().zip(says) {
        let user = User { groups: vec!["corp:group/in".into()], ..user.spec };
        let user = control.objects.create(&user, None).await.unwrap();
        let (kind, scope) = (drover_api::kinds::TokenKind::Bot, drover_api::kinds::TokenScope::All);
        crate::rest::tests::token(control, &user.spec, kind, scope).await;
        found.push((user, said));
    }
    // Changed while the provider was asked, and gone.
    let renamed = User { display_name: Some("Four".into()), ..found[4].0.spec.clone() };
    control.objects.update(found[4].0.metadata.revision, &renamed, None).await.unwrap();
    control.objects.delete::<User>("6@corp", found[5].0.metadata.revision).await.unwrap();
    apply(control, &provider, &found).await.unwrap();
    let tokens = control.objects.list::<drover_api::kinds::Token>().await.unwrap();
    for (number, groups, stays) in [
        (1, &["corp:group/dev", "corp:group/in"][..], true),
        (2, &[], false),
        (3, &[], false),
        (4, &["corp:group/in"], true),
        (5, &["corp:group/in"], true),
    ] {
        let user = control.objects.get::<User>(&format!("{number}@corp")).await.unwrap().unwrap().object.spec;
        assert_eq!(user.groups, groups, "{number}");
        assert_eq!(user.display_name, None, "{number}");
        assert_eq!(tokens.iter().any(|token| token.spec.user == user.principal), stays, "{number}");
    }
    assert!(control.objects.get::<User>("6@corp").await.unwrap().is_none());
    assert_eq!(control.group_names.name("corp:group/dev").as_deref(), Some("The dev"));
}
