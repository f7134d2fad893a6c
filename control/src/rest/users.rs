//! Local users.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use drover_api::kinds::{Binding, Kind, Object, User};
use drover_api::rest::{CreateUser, Created};
use drover_api::status::Status;
use drover_api::texts::{DisplayName, UserName};
use drover_api::token;
use drover_policy::Principal;

use super::caller::{Caller, subject};
use super::password::given_or_drawn;
use super::{Writes, applied, field, seen};
use crate::objects::{self, Stored};
use crate::people::{is_local, revoke_tokens};
use crate::placed::Place;
use crate::providers::NotOpened;
use crate::refresh::{self, NotRefreshed};
use crate::routes::{Control, Refused};

const NAME_BYTES_MAX: usize = 128;
const GROUPS_MAX: usize = 256;

impl Writes for User {
    async fn create(
        control: &Control,
        caller: &Caller,
        create: CreateUser,
    ) -> Result<Created<Self>, Refused> {
        let CreateUser { name, display_name, groups, password } = create;
        caller.may(control, "POST", Self::PLURAL, None, &Place::Drover)?;
        let principal = format!("local:user/{}", token::random_id());
        let display_name = shown("display_name", display_name)?;
        let user = User { principal, name, display_name, groups, disabled: false };
        check(&user)?;
        // Whoever makes one knows the password; in its groups the user holds what those do.
        caller.must_have_just_logged_in()?;
        let user_subject = subject(&user).ok_or_else(|| unsound("spec.groups"))?;
        caller.must_hold_all_of(control, &user_subject)?;
        let kept = &control.objects;
        let is_or_was = kept.get::<User>(&user.name).await?.is_some()
            || kept.get::<objects::UserName>(&user.name).await?.is_some();
        if is_or_was {
            let message = format!("{:?} is or was a user's name, and names are not given twice", user.name);
            return Err(Refused::of(Status::failure(409, "AlreadyExists", message)));
        }
        let (secret, drawn) = given_or_drawn(control, password).await?;
        let object = kept.create(&user, Some(&secret)).await?;
        Ok(Created { object, secret: drawn })
    }

    async fn replace(
        control: &Control,
        caller: &Caller,
        current: Stored<Self>,
        mut next: Self,
    ) -> Result<Object<Self>, Refused> {
        let Stored { object, secret } = current;
        next.display_name = shown("spec.display_name", next.display_name)?;
        if next.principal != object.spec.principal {
            return Err(Refused::of(Status::invalid("spec.principal", "does not change")));
        }
        if is_local(&next) {
            check(&next)?;
        } else if (&next.groups, &next.display_name) != (&object.spec.groups, &object.spec.display_name) {
            let message = "groups and display name are the directory's: change them there";
            return Err(Refused::of(Status::invalid("spec", message)));
        }
        check_able(control, caller, &object.spec, &next)?;
        if next.disabled {
            control.devices.forget(&next.principal);
        }
        Ok(control.objects.update(object.metadata.revision, &next, secret.as_ref()).await?)
    }

    /// The name first, which nobody gets again; then what the user could still use.
    async fn before_delete(control: &Control, caller: &Caller, user: &Self) -> Result<(), Refused> {
        // What is denied to them goes with them, and a directory may bring them back.
        let denied = Principal::parse(&user.principal)
            .is_ok_and(|principal| control.snapshots.authorizer().is_denied_anything(&principal));
        if denied {
            caller.must_administer_for_good(control)?;
        }
        let (name, principal) = (user.name.clone(), user.principal.clone());
        let gone = objects::UserName { name, principal, disabled: user.disabled };
        control.objects.put(&gone, None).await?;
        revoke_tokens(control, |token| token.user == user.principal).await?;
        control.devices.forget(&user.principal);
        if let Some(grant) = control.objects.get::<objects::Grant>(&user.principal).await? {
            control.objects.delete::<objects::Grant>(&user.principal, grant.object.metadata.revision).await?;
        }
        for binding in control.objects.list::<Binding>().await? {
            if binding.spec.principal == user.principal {
                control.objects.delete::<Binding>(binding.spec.key(), binding.metadata.revision).await?;
            }
        }
        Ok(())
    }

    async fn before_delete_unread(control: &Control, key: &str) -> Result<(), Refused> {
        let gone = objects::UserName { name: key.to_owned(), principal: UNREAD.to_owned(), disabled: true };
        if control.objects.get::<objects::UserName>(key).await?.is_none() {
            control.objects.create(&gone, None).await?;
        }
        Ok(())
    }
}

/// Of whom nothing but the name is known.
const UNREAD: &str = "local:user/unread";

/// Asks the user's directory now. Whoever it lets in no more is logged out.
pub(super) async fn refresh(
    State(control): State<Arc<Control>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    let user = seen::<User>(&control, &caller, &key).await?.object;
    caller.may(&control, "PUT", User::PLURAL, Some(&key), &Place::Drover)?;
    refresh::refresh_one(&control, &user).await?;
    caller.wrote("refreshed", &user.spec);
    let object = seen::<User>(&control, &caller, &key).await?.object;
    let revision = control.written();
    Ok(applied(&control, revision, StatusCode::OK, object).await)
}

impl From<NotRefreshed> for Refused {
    fn from(error: NotRefreshed) -> Self {
        let message = error.to_string();
        match error {
            NotRefreshed::Local => Self::of(Status::failure(400, "BadRequest", message)),
            NotRefreshed::Objects(error) | NotRefreshed::NotOpened(NotOpened::Objects(error)) => error.into(),
            NotRefreshed::NotOpened(_) | NotRefreshed::Stopping | NotRefreshed::Unavailable(_) => {
                Self::of(Status::failure(503, "ServiceUnavailable", message))
            }
        }
    }
}

/// Whoever makes a user able to do more holds all of it; and a deny is lost by no group that is left.
fn check_able(control: &Control, caller: &Caller, current: &User, next: &User) -> Result<(), Refused> {
    let (before, after) = (subject(current), subject(next).ok_or_else(|| unsound("spec.groups"))?);
    let before = before.map(|before| before.principals().to_vec()).unwrap_or_default();
    let enabled = current.disabled && !next.disabled;
    let gained = after.principals().iter().any(|principal| !before.contains(principal));
    if enabled || gained {
        caller.must_have_just_logged_in()?;
        caller.must_hold_all_of(control, &after)?;
    }
    let authorizer = control.snapshots.authorizer();
    let lost = before.iter().filter(|principal| !after.principals().contains(principal));
    if lost.into_iter().any(|principal| authorizer.is_denied_anything(principal)) {
        caller.must_administer_for_good(control)?;
    }
    Ok(())
}

fn unsound(field: &str) -> Refused {
    Refused::of(Status::invalid(field, "is not sound"))
}

fn shown(name: &str, display_name: Option<String>) -> Result<Option<String>, Refused> {
    let parsed = display_name.map(|text| field(name, DisplayName::parse(&text))).transpose()?;
    Ok(parsed.flatten().map(String::from))
}

/// What Drover asks of its own users, beyond what any user is.
fn check(user: &User) -> Result<(), Refused> {
    let invalid = |field: &str, problem: &str| Err(Refused::of(Status::invalid(field, problem)));
    field("spec.name", UserName::parse(&user.name))?;
    if user.name.len() > NAME_BYTES_MAX {
        return invalid("spec.name", &format!("must be at most {NAME_BYTES_MAX} bytes"));
    }
    if user.groups.len() > GROUPS_MAX {
        return invalid("spec.groups", "must be at most 256");
    }
    for group in &user.groups {
        let principal = field("spec.groups", Principal::parse(group))?;
        if !principal.as_str().starts_with("local:group/") {
            return invalid("spec.groups", "a local user's groups are local:group/<id>");
        }
    }
    Ok(())
}
