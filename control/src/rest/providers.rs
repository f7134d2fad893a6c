//! Directories: each is tried before it is kept.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use drover_api::kinds::{Binding, Directory, Jwt, Keys, Kind, Ldap, Object, Oidc, Provider, User};
use drover_api::rest::{ChangeSecret, CreateProvider, Created};
use drover_api::snapshot::RESERVED_PREFIXES;
use drover_api::status::Status;
use drover_policy::Principal;
use openidconnect::IssuerUrl;
use tokio::time::timeout;

use super::caller::Caller;
use super::login::is_browsers;
use super::{Writes, changeable, field, replaceable};
use crate::console::away;
use crate::objects::{ProviderSecret, Stored};
use crate::people::{self, LOCAL, end_tokens};
use crate::placed::Place;
use crate::providers::{self, Unavailable};
use crate::routes::{Control, Refused};

const NAME_BYTES_MAX: usize = 32;
const ALLOWED_MAX: usize = 1000;
/// Of one provider, and as many to which references are followed.
const LDAP_SERVERS_MAX: usize = 16;
const RULES_MAX: usize = 1000;
const SCOPES_MAX: usize = 32;
/// Of the whole test.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

impl Writes for Provider {
    async fn try_to_create(
        control: &Control,
        caller: &Caller,
        create: &CreateProvider,
    ) -> Result<(), Refused> {
        caller.may(control, "POST", Self::PLURAL, None, &Place::Drover)?;
        must_own_all(control, caller)?;
        check(&create.spec)?;
        try_out(control, &create.spec, &create.password).await
    }

    async fn try_to_replace(
        control: &Control,
        caller: &Caller,
        current: &Stored<Self>,
        next: &Self,
    ) -> Result<(), Refused> {
        must_own_all(control, caller)?;
        check(next)?;
        check_stays(&current.object.spec, next)?;
        if next.directory == current.object.spec.directory {
            return Ok(());
        }
        if is_elsewhere(&current.object.spec.directory, &next.directory) {
            let message = "decides who gets the password that is kept: give it along, to .../secret";
            return Err(Refused::of(Status::invalid("spec.directory", message)));
        }
        let password = current.secret.as_ref().map(|secret| secret.password.as_str()).unwrap_or_default();
        try_out(control, next, password).await
    }

    async fn create(
        control: &Control,
        caller: &Caller,
        create: CreateProvider,
    ) -> Result<Created<Self>, Refused> {
        let CreateProvider { spec, password } = create;
        caller.may(control, "POST", Self::PLURAL, None, &Place::Drover)?;
        must_own_all(control, caller)?;
        let left = left_of(control, &spec.name).await?;
        if left > 0 {
            let message =
                format!("{:?} was a provider's name: {left} users and bindings of it are left", spec.name);
            return Err(Refused::of(Status::failure(409, "AlreadyExists", message)));
        }
        let object = control.objects.create(&spec, Some(&ProviderSecret { password })).await?;
        Ok(Created { object, secret: None })
    }

    async fn replace(
        control: &Control,
        caller: &Caller,
        current: Stored<Self>,
        next: Self,
    ) -> Result<Object<Self>, Refused> {
        must_own_all(control, caller)?;
        let Stored { object, secret } = current;
        if matches!(object.spec.directory, Directory::Jwt(_)) && next != object.spec {
            end_jwts(control, &object.spec).await?;
        }
        Ok(control.objects.update(object.metadata.revision, &next, secret.as_ref()).await?)
    }

    async fn before_delete(control: &Control, _caller: &Caller, provider: &Self) -> Result<(), Refused> {
        if matches!(provider.directory, Directory::Jwt(_)) {
            // At once, whatever is left: nobody gets the name again before that is gone.
            return end_jwts(control, provider).await;
        }
        let left = left_of(control, &provider.name).await?;
        if left > 0 {
            let message =
                format!("{left} users and bindings of it are left: delete them first, or disable it");
            return Err(Refused::of(Status::failure(409, "Conflict", message)));
        }
        control.group_names.forget(&provider.name);
        Ok(())
    }
}

/// Whoever says where users come from says who everybody is.
fn must_own_all(control: &Control, caller: &Caller) -> Result<(), Refused> {
    caller.must_have_just_logged_in()?;
    caller.must_administer_for_good(control)
}

/// Ends what an issuer's JWTs may do: those that hold by what it is next are known again from their next use on.
async fn end_jwts(control: &Control, issuer: &Provider) -> Result<(), Refused> {
    let prefix = format!("{}:", issuer.name);
    end_tokens(control, |token| token.user.starts_with(&prefix)).await?;
    Ok(())
}

/// Tries a provider that is kept, and changes nothing.
pub(super) async fn test(
    State(control): State<Arc<Control>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Object<Provider>>, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    let Stored { object, secret } = changeable::<Provider>(&control, &caller, &key).await?;
    try_out(&control, &object.spec, &secret.map(|secret| secret.password).unwrap_or_default()).await?;
    Ok(Json(object))
}

/// Gives a provider another password or client's secret, which is tried first.
pub(super) async fn change_secret(
    State(control): State<Arc<Control>>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Result<Json<ChangeSecret>, JsonRejection>,
) -> Result<Json<Object<Provider>>, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    let Json(ChangeSecret { password, object }) = body?;
    must_own_all(&control, &caller)?;
    let tried = match object {
        None => changeable::<Provider>(&control, &caller, &key).await?.object,
        Some(next) => {
            let current =
                replaceable::<Provider>(&control, &caller, &key, next.metadata.revision).await?.object;
            check(&next.spec)?;
            check_stays(&current.spec, &next.spec)?;
            next
        }
    };
    try_out(&control, &tried.spec, &password).await?;
    let (caller, writing) = caller.begin_write(&control).await?;
    changeable::<Provider>(&control, &caller, &key).await?;
    must_own_all(&control, &caller)?;
    let secret = ProviderSecret { password };
    // As it was tried: whatever changed meanwhile refuses.
    let object = control.objects.update(tried.metadata.revision, &tried.spec, Some(&secret)).await?;
    drop(writing);
    caller.wrote("given another secret", &object.spec);
    Ok(Json(object))
}

/// What tells a provider's ids from another's does not change: they would be somebody else's.
fn check_stays(current: &Provider, next: &Provider) -> Result<(), Refused> {
    let stays = match (&current.directory, &next.directory) {
        (Directory::Github(current), Directory::Github(next)) => current.server == next.server,
        (Directory::Oidc(current), Directory::Oidc(next)) => current.issuer == next.issuer,
        (Directory::Jwt(_), Directory::Jwt(_)) | (Directory::Ldap(_), Directory::Ldap(_)) => true,
        _ => false,
    };
    if current.name != next.name {
        return Err(Refused::of(Status::invalid("spec.name", "does not change")));
    }
    if !stays {
        let message = "has other users, whose ids may be the same: add another provider";
        return Err(Refused::of(Status::invalid("spec.directory", message)));
    }
    Ok(())
}

/// Whether the secret of one would be shown to others, or for another client, if it were kept for the next.
fn is_elsewhere(current: &Directory, next: &Directory) -> bool {
    match (current, next) {
        (Directory::Github(current), Directory::Github(next)) => {
            (&current.ca, &current.client_id) != (&next.ca, &next.client_id)
        }
        (Directory::Ldap(current), Directory::Ldap(next)) => {
            let Ldap { servers, referrals, ca, bind_name, .. } = current;
            (servers, referrals, ca, bind_name) != (&next.servers, &next.referrals, &next.ca, &next.bind_name)
        }
        (Directory::Oidc(current), Directory::Oidc(next)) => {
            (&current.ca, &current.client_id) != (&next.ca, &next.client_id)
        }
        // Those have none.
        (Directory::Jwt(_), Directory::Jwt(_)) => false,
        _ => true,
    }
}

/// Users and bindings that another directory of that name would get.
async fn left_of(control: &Control, name: &str) -> Result<usize, Refused> {
    let prefix = format!("{name}:");
    let users = control.objects.list::<User>().await?;
    let bindings = control.objects.list::<Binding>().await?;
    let principals = users.iter().map(|user| &user.spec.principal);
    let principals = principals.chain(bindings.iter().map(|binding| &binding.spec.principal));
    Ok(principals.filter(|principal| principal.starts_with(&prefix)).count())
}

async fn try_out(control: &Control, provider: &Provider, password: &str) -> Result<(), Refused> {
    let back = away::back(control);
    if back.is_none() && is_browsers(provider) {
        let message =
            "people log in there in the console, and there is none: start control with --console-url";
        return Err(Refused::of(Status::invalid("spec.directory", message)));
    }
    let back = back.unwrap_or_default();
    let test = async { providers::open(provider, password)?.test(&back).await };
    let tried = timeout(TEST_TIMEOUT, test).await;
    let tried = tried.unwrap_or_else(|_| Err(Unavailable(format!("no answer within {TEST_TIMEOUT:?}"))));
    tried.map_err(|Unavailable(problem)| {
        Refused::of(Status::invalid("spec.directory", format!("does not work: {problem}")))
    })
}

fn check(provider: &Provider) -> Result<(), Refused> {
    let invalid = |field: &str, problem: &str| Err(Refused::of(Status::invalid(field, problem)));
    let name = &provider.name;
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(sound) {
        return invalid("spec.name", "must be 1 to 32 lower-case letters, digits and '-'");
    }
    let reserved = RESERVED_PREFIXES.iter().any(|prefix| prefix.trim_end_matches(':') == name);
    if reserved || name == LOCAL {
        return invalid("spec.name", "must not be local, system or drover");
    }
    if provider.allowed.len() > ALLOWED_MAX {
        return invalid("spec.allowed", "must be at most 1000");
    }
    for allowed in &provider.allowed {
        let principal = field("spec.allowed", Principal::parse(allowed))?;
        if !principal.as_str().starts_with(&format!("{name}:")) {
            return invalid("spec.allowed", "must be users and groups of this provider: <name>:user/<id>");
        }
    }
    match &provider.directory {
        Directory::Github(github) => {
            let server = github.server.as_deref().unwrap_or("https://github.com");
            if !server.starts_with("https://") {
                return invalid("spec.directory.github.server", "must be https://HOST");
            }
            if github.client_id.is_empty() {
                return invalid("spec.directory.github.client_id", "must be that of an OAuth app");
            }
        }
        Directory::Jwt(issuer) => check_issuer(name, issuer)?,
        Directory::Ldap(ldap) => {
            let with_tls = |server: &String| server.starts_with("ldaps://") || server.starts_with("ldap://");
            for (field, servers) in [("servers", &ldap.servers), ("referrals", &ldap.referrals)] {
                if servers.len() > LDAP_SERVERS_MAX || !servers.iter().all(with_tls) {
                    let problem =
                        format!("must be ldaps://host or ldap://host (StartTLS), {LDAP_SERVERS_MAX} at most");
                    return invalid(&format!("spec.directory.ldap.{field}"), &problem);
                }
            }
            if ldap.servers.is_empty() {
                return invalid("spec.directory.ldap.servers", "must name a server");
            }
            let filter = ldap.user_filter.as_deref().unwrap_or("()");
            if !filter.starts_with('(') || !filter.ends_with(')') {
                return invalid(
                    "spec.directory.ldap.user_filter",
                    "must be in parentheses, as in (department=IT)",
                );
            }
            if ldap.user_base.is_empty() || ldap.bind_name.is_empty() {
                return invalid("spec.directory.ldap", "needs user_base and bind_name");
            }
        }
        Directory::Oidc(oidc) => check_oidc(oidc)?,
    }
    Ok(())
}

fn check_oidc(oidc: &Oidc) -> Result<(), Refused> {
    let invalid = |field: &str, problem: &str| {
        Err(Refused::of(Status::invalid(&format!("spec.directory.oidc.{field}"), problem)))
    };
    if !oidc.issuer.starts_with("https://") {
        return invalid("issuer", "must be https://, as the provider writes it");
    }
    if oidc.client_id.is_empty() {
        return invalid("client_id", "must be what Drover is registered as");
    }
    if oidc.scopes.len() > SCOPES_MAX
        || oidc.scopes.iter().any(|scope| scope.is_empty() || scope.contains(' '))
    {
        return invalid("scopes", "must be at most 32, each without a space");
    }
    if oidc.login_claim.is_empty() || oidc.groups_claim.is_empty() {
        return invalid("login_claim", "must be a claim, as must groups_claim");
    }
    Ok(())
}

fn check_issuer(provider: &str, issuer: &Jwt) -> Result<(), Refused> {
    let invalid = |field: &str, problem: &str| Err(Refused::of(Status::invalid(field, problem)));
    let field = |name: &str| format!("spec.directory.jwt.{name}");
    let is_url = |text: &str| text.starts_with("https://");
    if issuer.issuer.is_empty() || IssuerUrl::new(issuer.issuer.clone()).is_err() {
        return invalid(&field("issuer"), "must be a URL: the claim iss, exactly");
    }
    match &issuer.keys {
        Keys::Discovery if !is_url(&issuer.issuer) => {
            return invalid(
                &field("keys"),
                "are found at https:// only: give their URL, or the keys themselves",
            );
        }
        Keys::Url(url) if !is_url(url) => return invalid(&field("keys.url"), "must be https://"),
        Keys::Discovery | Keys::Set(_) | Keys::Url(_) => {}
    }
    if issuer.audience.is_empty() {
        return invalid(&field("audience"), "must be a name for Drover and nothing else, such as drover");
    }
    if issuer.rules.is_empty() || issuer.rules.len() > RULES_MAX {
        return invalid(&field("rules"), "must be 1 to 1000");
    }
    for rule in &issuer.rules {
        let principal = people::principal(provider, &rule.name);
        if !people::is_login(&rule.name) || Principal::parse(&principal).is_err() {
            return invalid(&field("rules.name"), "must be the name of an identity, such as deploy");
        }
        if rule.claims.is_empty()
            || rule.claims.iter().any(|(name, value)| name.is_empty() || value.is_empty())
        {
            return invalid(
                &field("rules.claims"),
                "must be claims with values: a rule without would match every JWT",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
