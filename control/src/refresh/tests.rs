use async_trait::async_trait;

use super::*;
use crate::objects::{Grant, GrantSecret};
use crate::providers::Known;
use crate::rest::tests::served;

const WHO: &str = "corp:user/1";

/// A provider that says one thing: nothing, or a person with what to ask with next.
struct Says(Option<&'static str>);

#[async_trait]
impl Directory for Says {
    async fn find(&self, id: &str, _grant: Option<&str>) -> Result<Found, Unavailable> {
        let Some(next) = self.0 else { return Ok(Found::Unknown) };
        let person = Person { id: id.into(), login: "zoe".into(), display_name: None, groups: vec![] };
        Ok(Found::Known(Box::new(Known { person, grant: Some(next.into()) })))
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
        assert_eq!(matches!(said, Said::Gone), !expected, "{age_s:?}");
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
