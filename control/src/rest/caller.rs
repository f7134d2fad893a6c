//! Who calls, and what they may do.

use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use drover_api::kinds::{Kind, Object, Token, TokenScope, User};
use drover_api::status::Status;
use drover_api::token::{CredentialHash, Presented, TokenId};
use drover_policy::{Principal, Refusal, Subject};
use jiff::Timestamp;
use tokio::sync::MutexGuard;
use tokio::time::timeout;
use tracing::info;

use crate::authorizer::{Asked, NotAllowed};
use crate::objects::ObjectsError;
use crate::placed::{Place, Placed};
use crate::routes::{Control, Refused};
use crate::store::Revision;

/// How long a request waits for what was written before it to be published: some times what the largest states take.
const CURRENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How old a login may be by which others can be made able to act.
const JUST_LOGGED_IN: Duration = Duration::from_secs(5 * 60);

/// The principals of a user.
pub(crate) fn subject(user: &User) -> Option<Subject> {
    let groups = user.groups.iter().map(|group| Principal::parse(group).ok()).collect::<Option<Vec<_>>>()?;
    Some(Subject::new(Principal::parse(&user.principal).ok()?, groups))
}

/// A user who has shown a token.
#[derive(Clone)]
pub(crate) struct Caller {
    pub user: Object<User>,
    pub token: Object<Token>,
    pub principal: Principal,
    pub subject: Subject,
    pub now: SystemTime,
}

impl Caller {
    pub(crate) async fn of(control: &Control, headers: &HeaderMap) -> Result<Self, Refused> {
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        let (Some(shown), None) = (shown.next(), shown.next()) else {
            return Err(Refused::unauthorized(
                "show a token as \"Authorization: Bearer drv_...\": drover login gets one",
            ));
        };
        let text = shown.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        Self::of_token(control, text.unwrap_or_default().trim()).await
    }

    pub(crate) async fn of_token(control: &Control, token: &str) -> Result<Self, Refused> {
        control.become_current().await?;
        let presented = Presented::parse(token).or_else(|_| Presented::of_jwt(token)).ok();
        let presented = presented.ok_or_else(|| Refused::unauthorized("that is no token of Drover's"))?;
        let caller = Self::by(control, &presented.id, &presented.hash)?;
        control.uses.note([presented.id], Timestamp::try_from(caller.now).unwrap_or_default());
        Ok(caller)
    }

    /// Holds off all other writes; with whom the caller is by what the last one left. They may be nobody by now, or
    /// may do less than when they asked.
    pub(crate) async fn begin_write(self, control: &Control) -> Result<(Self, Writing<'_>), Refused> {
        let writing = control.begin_write().await?;
        let caller = Self::by(control, &self.token.spec.id, &self.token.spec.hash)?;
        Ok((caller, writing))
    }

    fn by(control: &Control, id: &TokenId, hash: &CredentialHash) -> Result<Self, Refused> {
        let (now, state) = (SystemTime::now(), control.snapshots.state());
        // One answer to all: who guesses learns nothing.
        let invalid =
            || Refused::unauthorized("the token is unknown, expired or revoked: drover login gets another");
        let token = state.token(id.as_str()).filter(|token| token.spec.hash == *hash);
        let token =
            token.filter(|token| now < SystemTime::from(token.spec.expires_at)).ok_or_else(invalid)?;
        let user = state.published_user(&token.spec.user).filter(|user| !user.spec.disabled);
        let user = user.ok_or_else(invalid)?;
        if token.spec.scope != TokenScope::All {
            let message = "the token is for some clusters only, and not for Drover itself";
            return Err(Refused::of(Status::failure(403, "Forbidden", message)));
        }
        let principal = Principal::parse(&user.spec.principal).map_err(|_| invalid())?;
        let subject = subject(&user.spec).ok_or_else(invalid)?;
        Ok(Self { user, token, principal, subject, now })
    }

    /// Refuses what the rules of the place do not allow.
    pub(crate) fn may(
        &self,
        control: &Control,
        method: &str,
        plural: &str,
        key: Option<&str>,
        place: &Place,
    ) -> Result<(), Refused> {
        let asked = Asked { method, plural, key };
        let decided = control.snapshots.authorizer().decide(&self.subject, place, asked, self.now);
        decided.map_err(|refusal| self.forbidden(method, plural, key, &refusal))
    }

    /// Refuses whom a login of long ago, or no login at all, lets act: where somebody else could act as others by it.
    pub(crate) fn must_have_just_logged_in(&self) -> Result<(), Refused> {
        let began_at = self.token.spec.session.as_ref().and_then(|session| session.began_at);
        let age = began_at.map(|began_at| self.now.duration_since(began_at.into()).unwrap_or_default());
        if age.is_some_and(|age| age <= JUST_LOGGED_IN) {
            return Ok(());
        }
        let message = "this takes a login of the last 5 minutes: drover login again, and then try again";
        Err(Refused::of(Status::failure(403, "LoginRequired", message)))
    }

    /// Refuses to make somebody able to act who holds more than the caller, or for longer.
    pub(crate) fn must_hold_all_of(&self, control: &Control, other: &Subject) -> Result<(), Refused> {
        if control.snapshots.authorizer().covers_all_of(&self.subject, other, self.now) {
            return Ok(());
        }
        let message =
            "they hold more than you do, or for longer, so you cannot make anybody able to act as them";
        Err(Refused::of(Status::failure(403, "Forbidden", message)))
    }

    /// Refuses what anybody could be made by, to all but Drover's administrators, and to those for whom that ends.
    pub(crate) fn must_administer_for_good(&self, control: &Control) -> Result<(), Refused> {
        if control.snapshots.authorizer().administers(&self.subject, self.now) == Some(None) {
            return Ok(());
        }
        let message = "by this one could come to act as anybody, so it takes an administrator of Drover's: admin, bound globally and without an end";
        Err(Refused::of(Status::failure(403, "Forbidden", message)))
    }

    pub(crate) fn owns(&self, object: &impl Placed) -> bool {
        object.owner().as_ref() == Some(&self.principal)
    }

    /// Whether an object is shown: one's own, by the rules, and a cluster to everybody with a role in it.
    pub(crate) fn sees<K: Kind + Placed>(&self, control: &Control, object: &K) -> bool {
        if self.owns(object) {
            return true;
        }
        let asked = Asked { method: "GET", plural: K::PLURAL, key: Some(object.key()) };
        let place = object.place();
        match control.snapshots.authorizer().decide(&self.subject, &place, asked, self.now) {
            Ok(()) => true,
            Err(NotAllowed::Rules(Refusal::NotPermitted(_))) => K::SEEN_BY_ROLE && place != Place::Drover,
            Err(NotAllowed::Method(_) | NotAllowed::Rules(_)) => false,
        }
    }

    /// The record of a change: who made it, with which token.
    pub(super) fn wrote<K: Kind>(&self, verb: &str, object: &K) {
        let (user, token) = (&self.user.spec.name, self.token.spec.id.as_str());
        info!(user, token, verb, kind = K::KIND, key = object.key(), "written");
    }

    fn forbidden(&self, method: &str, plural: &str, key: Option<&str>, refusal: &NotAllowed) -> Refused {
        let verb = match method {
            "GET" => "read",
            "POST" => "create",
            "PUT" => "update",
            "DELETE" => "delete",
            other => other,
        };
        let why = match refusal {
            NotAllowed::Method(problem) => problem.to_string(),
            NotAllowed::Rules(Refusal::ClusterUnknown(cluster)) => format!("there is no cluster {cluster}"),
            NotAllowed::Rules(Refusal::Denied(_)) => "a rule denies it".to_owned(),
            NotAllowed::Rules(Refusal::NoRole(_) | Refusal::NotPermitted(_)) => {
                "no role of the user allows it".to_owned()
            }
            NotAllowed::Rules(Refusal::PolicyExpired) => refusal.to_string(),
        };
        let object = key.map_or_else(|| plural.to_owned(), |key| format!("{plural} {key:?}"));
        let message = format!("user {:?} cannot {verb} {object}: {why}", self.user.spec.name);
        Refused::of(Status::failure(403, "Forbidden", message))
    }
}

/// The lock of all writes. While it is held, what is published is all that was written before.
pub(crate) struct Writing<'c>(#[expect(dead_code, reason = "it is held")] MutexGuard<'c, ()>);

impl Control {
    /// The revision of the last write.
    pub(crate) fn written(&self) -> Revision {
        *self.objects.store().revision().borrow()
    }

    /// Holds off all other writes, once what the last one left is what decides.
    pub(crate) async fn begin_write(&self) -> Result<Writing<'_>, ObjectsError> {
        let writes = self.writes.lock().await;
        self.become_current().await?;
        Ok(Writing(writes))
    }

    /// Waits until what was written so far is what decides: a token that was revoked a moment ago is refused. Nobody is
    /// decided about by less than that.
    async fn become_current(&self) -> Result<(), ObjectsError> {
        let written = self.written();
        let mut published = self.snapshots.published();
        let reached = published.wait_for(|published| published.revision >= written);
        match timeout(CURRENT_TIMEOUT, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ObjectsError::Behind),
        }
    }
}
