//! Users whom a directory knows: they come with their first login, and their groups follow the directory.

use std::collections::HashSet;

use drover_api::kinds::{Access, Object, Provider, Token, TokenKind, User};
use drover_api::snapshot::USER_GROUPS_MAX;
use drover_api::texts::{self, DisplayName};
use drover_api::token::{self, TokenId};
use drover_policy::Principal;
use jiff::Timestamp;
use tracing::info;

use crate::objects::{Grant, GrantSecret, Objects, ObjectsError, RevokedJwt, UserName};
use crate::providers::Person;
use crate::routes::Control;
use crate::store::Revision;

/// Longest name of an account, in bytes.
const LOGIN_BYTES_MAX: usize = 256;
/// The provider of Drover's own users.
pub(crate) const LOCAL: &str = "local";
/// Names that are tried for a new user before it gets none.
const NAMES_TRIED_MAX: usize = 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("{0} is not among those whom the provider lets in")]
    Access(String),
    #[error("the directory's {0:?} cannot be a principal")]
    Id(String),
    #[error("{0} has a name that Kubernetes or Drover keeps for itself, or that cannot be one")]
    Name(String),
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[error("{0} is in more than {USER_GROUPS_MAX} groups")]
    TooManyGroups(String),
}

/// Whether Drover itself knows the user's password and groups.
pub(crate) fn is_local(user: &User) -> bool {
    user.principal.split_once(':').is_some_and(|(provider, _)| provider == LOCAL)
}

/// The principal of a person of a provider's.
pub(crate) fn principal(provider: &str, id: &str) -> String {
    format!("{provider}:user/{id}")
}

/// The principal of a group of a provider's.
pub(crate) fn group(provider: &str, id: &str) -> String {
    format!("{provider}:group/{id}")
}

/// What of a person is in their user, of one whom the provider lets in.
pub(crate) struct Admitted {
    principal: String,
    display_name: Option<String>,
    groups: Vec<String>,
}

/// Whether a provider lets a person in.
pub(crate) async fn admit(
    control: &Control,
    provider: &Provider,
    person: &Person,
) -> Result<Admitted, NotTaken> {
    let groups: Vec<_> = person.groups.keys().map(|id| group(&provider.name, id)).collect();
    if groups.len() > USER_GROUPS_MAX {
        return Err(NotTaken::TooManyGroups(person.login.clone()));
    }
    let principal = principal(&provider.name, &person.id);
    // It would be refused as unsound: here it is said in the directory's words.
    if let Some(unsound) =
        [&principal].into_iter().chain(&groups).find(|text| Principal::parse(text).is_err())
    {
        return Err(NotTaken::Id(unsound.clone()));
    }
    if !is_let_in(control, provider, &principal, &groups) {
        return Err(NotTaken::Access(person.login.clone()));
    }
    let display_name = person.display_name.as_deref().and_then(DisplayName::of_directory).map(String::from);
    Ok(Admitted { principal, display_name, groups })
}

/// The person's user as the directory has it now; made where it is new. Whoever calls it holds the lock of all writes.
pub(crate) async fn take_in(
    control: &Control,
    provider: &Provider,
    known: Option<Object<User>>,
    person: &Person,
) -> Result<Object<User>, NotTaken> {
    let admitted = admit(control, provider, person).await?;
    let objects = &control.objects;
    if let Some(known) = known {
        return Ok(follow(objects, known, admitted).await?);
    }
    let Admitted { principal, display_name, groups } = admitted;
    let name = free_name(objects, &provider.name, &person.login, &principal).await?;
    // Who was disabled when they were deleted is so still: a deletion lets nobody in.
    let gone = objects.list::<UserName>().await?;
    let disabled = gone.iter().any(|gone| gone.spec.principal == principal && gone.spec.disabled);
    let user = User { principal, name, display_name, groups, disabled };
    info!(user = user.name, principal = user.principal, "a user comes from a directory");
    Ok(objects.create(&user, None).await?)
}

/// A known user as the directory has it now. Whoever calls it holds the lock of all writes.
pub(crate) async fn follow(
    objects: &Objects,
    known: Object<User>,
    admitted: Admitted,
) -> Result<Object<User>, ObjectsError> {
    let Admitted { display_name, groups, .. } = admitted;
    if known.spec.groups == groups && known.spec.display_name == display_name {
        return Ok(known);
    }
    let user = User { display_name, groups, ..known.spec };
    objects.update(known.metadata.revision, &user, None).await
}

/// Whether a user of the principal was deleted after a revision.
pub(crate) async fn was_deleted_since(
    objects: &Objects,
    principal: &str,
    since: Revision,
) -> Result<bool, ObjectsError> {
    let gone = objects.list::<UserName>().await?;
    Ok(gone.iter().any(|gone| gone.metadata.revision > since && gone.spec.principal == principal))
}

/// Of a JWT it stays known that it was revoked.
pub(crate) async fn keep_revoked(control: &Control, token: &Token) -> Result<(), ObjectsError> {
    if token.kind == TokenKind::Jwt {
        control.objects.put(&RevokedJwt::of(token), None).await?;
    }
    Ok(())
}

/// Ends tokens for good: JWTs among them stay refused for as long as they would hold. Whoever calls it holds the lock
/// of all writes.
pub(crate) async fn revoke_tokens(
    control: &Control,
    is_meant: impl Fn(&Token) -> bool,
) -> Result<Vec<TokenId>, ObjectsError> {
    let jwts = control.snapshots.state().jwts(&is_meant);
    for jwt in &jwts {
        keep_revoked(control, jwt).await?;
    }
    end_tokens(control, is_meant).await
}

/// Deletes the tokens that are meant, and those that were made with them; their ids. Whoever calls it holds the lock of all writes.
pub(crate) async fn end_tokens(
    control: &Control,
    is_meant: impl Fn(&Token) -> bool,
) -> Result<Vec<TokenId>, ObjectsError> {
    let meant = control.snapshots.state().tokens_and_made(&is_meant);
    let mut ended = Vec::new();
    for (id, revision) in meant {
        control.objects.delete::<Token>(id.as_str(), revision).await?;
        ended.push(id);
    }
    Ok(ended)
}

/// What to ask a user's provider with, where it needs that; and when it last said who it is.
pub(crate) async fn grant(
    objects: &Objects,
    principal: &str,
) -> Result<Option<(Option<String>, Timestamp)>, ObjectsError> {
    let kept = objects.get::<Grant>(principal).await?;
    Ok(kept.map(|kept| (kept.secret.and_then(|secret| secret.token), kept.object.spec.known_at)))
}

/// Keeps it. Whoever calls it holds the lock of all writes.
pub(crate) async fn keep_grant(
    objects: &Objects,
    principal: &str,
    token: Option<String>,
) -> Result<(), ObjectsError> {
    let secret = GrantSecret { token };
    let spec = Grant { principal: principal.to_owned(), known_at: Timestamp::now() };
    objects.put(&spec, Some(&secret)).await?;
    Ok(())
}

/// Ends what people may do whom the directory lets in no more. Their users stay: principals and names are their own.
/// Whoever calls it holds the lock of all writes.
pub(crate) async fn log_out(control: &Control, users: &[Object<User>]) -> Result<(), ObjectsError> {
    if users.is_empty() {
        return Ok(());
    }
    let objects = &control.objects;
    let principals: HashSet<_> = users.iter().map(|user| user.spec.principal.as_str()).collect();
    end_tokens(control, |token| principals.contains(token.user.as_str())).await?;
    for user in users {
        control.devices.forget(&user.spec.principal);
        if let Some(grant) = objects.get::<Grant>(&user.spec.principal).await? {
            objects.delete::<Grant>(&user.spec.principal, grant.object.metadata.revision).await?;
        }
        if !user.spec.groups.is_empty() {
            let without = User { groups: Vec::new(), ..user.spec.clone() };
            objects.update(user.metadata.revision, &without, None).await?;
        }
        info!(user = user.spec.name, "logged out: the directory lets the user in no more");
    }
    Ok(())
}

fn is_let_in(control: &Control, provider: &Provider, principal: &str, groups: &[String]) -> bool {
    let is_theirs = |name: &String| name == principal || groups.contains(name);
    let listed = provider.allowed.iter().any(is_theirs);
    match provider.access {
        Access::Unrestricted => true,
        Access::Required => listed,
        Access::Restricted if listed => true,
        Access::Restricted => {
            let state = control.snapshots.state();
            groups.iter().map(String::as_str).chain([principal]).any(|name| state.bindings_of(name) > 0)
        }
    }
}

/// Whether an account's name can be part of a user's.
pub(crate) fn is_login(login: &str) -> bool {
    login.len() <= LOGIN_BYTES_MAX && texts::UserName::parse(login).is_ok()
}

/// `alice@ad`, or where somebody else has or had that, `alice-2@ad` and on.
async fn free_name(
    objects: &Objects,
    provider: &str,
    login: &str,
    principal: &str,
) -> Result<String, NotTaken> {
    let unsound = || NotTaken::Name(login.to_owned());
    if !is_login(login) {
        return Err(unsound());
    }
    let drawn = format!("{login}-{}@{provider}", token::random_id());
    let counted = (1..NAMES_TRIED_MAX).map(|count| match count {
        1 => format!("{login}@{provider}"),
        _ => format!("{login}-{count}@{provider}"),
    });
    for name in counted.chain([drawn]) {
        let is = objects.get::<User>(&name).await?.is_some();
        let was = objects.get::<UserName>(&name).await?;
        let was_anothers = was.is_some_and(|was| was.object.spec.principal != principal);
        if !is && !was_anothers {
            return Ok(name);
        }
    }
    Err(unsound())
}

#[cfg(test)]
pub(crate) mod tests {
    use drover_api::kinds::{Binding, Directory, Domain, Ldap, Schema};

    use super::*;
    use crate::rest::tests::served;

    pub(crate) fn provider(access: Access, allowed: &[&str]) -> Provider {
        let ldap = Ldap {
            servers: vec!["ldaps://ldap.test".into()],
            referrals: vec![],
            ca: None,
            schema: Schema::InetOrgPerson,
            bind_name: "cn=drover".into(),
            user_base: "dc=test".into(),
            group_base: None,
            user_filter: None,
            domain: None,
        };
        let allowed = allowed.iter().map(|name| (*name).to_owned()).collect();
        Provider { name: "corp".into(), disabled: false, access, allowed, directory: Directory::Ldap(ldap) }
    }

    fn person(id: &str, login: &str, groups: &[&str]) -> Person {
        let groups = groups.iter().map(|id| ((*id).to_owned(), None)).collect();
        Person { id: id.into(), login: login.into(), display_name: Some("Zoe".into()), groups }
    }

    #[tokio::test]
    async fn each_access_mode_lets_in_whom_it_says() {
        let served = served().await;
        let control = &served.control;
        let objects = &control.objects;
        for (name, principal) in [("zoe", "corp:user/1"), ("ops", "corp:group/ops")] {
            let binding = Binding {
                name: name.into(),
                principal: principal.into(),
                role: "cluster-viewer".into(),
                domain: Domain::Cluster("c-1".into()),
                expires_at: None,
            };
            objects.create(&binding, None).await.unwrap();
        }
        let _writing = control.begin_write().await.unwrap();
        let (bound, by_group, listed, nobody) = (
            person("1", "a", &[]),
            person("2", "b", &["ops"]),
            person("3", "c", &["sales"]),
            person("4", "d", &[]),
        );
        for (access, allowed, expected) in [
            (Access::Unrestricted, &[][..], [true, true, true, true]),
            (Access::Restricted, &[], [true, true, false, false]),
            (Access::Restricted, &["corp:group/sales"], [true, true, true, false]),
            (Access::Required, &[], [false, false, false, false]),
            (Access::Required, &["corp:group/sales", "corp:user/4"], [false, false, true, true]),
        ] {
            let provider = provider(access, allowed);
            for (person, expected) in [&bound, &by_group, &listed, &nobody].into_iter().zip(expected) {
                let principal = principal("corp", &person.id);
                let groups: Vec<_> = person.groups.keys().map(|id| group("corp", id)).collect();
                let said = is_let_in(control, &provider, &principal, &groups);
                assert_eq!(said, expected, "{access:?} {allowed:?} {}", person.login);
            }
        }
    }

    /// Gateways would not take it up, so it is not published; but it is there.
    #[tokio::test]
    async fn what_is_set_aside_counts_and_ends_as_what_is_published() {
        let served = served().await;
        let control = &served.control;
        served.user("zoe", &[]).await;
        let zoes = |token: &Token| token.user == "local:user/zoe";
        let first = control.objects.list::<Token>().await.unwrap().remove(0).spec;
        let of = |user: &str| {
            let made = token::generate();
            Token {
                id: made.id,
                hash: made.hash,
                proof_key: made.proof_key,
                user: user.into(),
                ..first.clone()
            }
        };
        control.objects.create(&of("local:user/nobody"), None).await.unwrap();
        control.objects.create(&of("local:user/zoe"), None).await.unwrap();
        let binding = Binding {
            name: "ops".into(),
            principal: "corp:group/ops".into(),
            role: "cluster-viewer".into(),
            domain: Domain::Cluster("c-1".into()),
            expires_at: None,
        };
        control.objects.create(&binding, None).await.unwrap();
        let _writing = control.begin_write().await.unwrap();
        let restricted = provider(Access::Restricted, &[]);
        for (group, expected) in [("ops", true), ("dev", false)] {
            let said = is_let_in(control, &restricted, "corp:user/1", &[super::group("corp", group)]);
            assert_eq!(said, expected, "{group}");
        }
        assert_eq!(end_tokens(control, zoes).await.unwrap().len(), 2);
        assert_eq!(control.objects.list::<Token>().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn nobody_gets_anothers_name_and_nothing_unsound_becomes_a_user() {
        let served = served().await;
        let objects = &served.control.objects;
        let provider = provider(Access::Unrestricted, &[]);
        let take_in = async |known, person: &Person| take_in(&served.control, &provider, known, person).await;
        let first = take_in(None, &person("1", "zoe", &["a"])).await.unwrap();
        assert_eq!((first.spec.name.as_str(), first.spec.principal.as_str()), ("zoe@corp", "corp:user/1"));
        assert_eq!(first.spec.groups, ["corp:group/a"]);
        // Another person, whom the directory calls the same.
        let second = take_in(None, &person("2", "zoe", &[])).await.unwrap();
        assert_eq!(second.spec.name, "zoe-2@corp");
        // One who was here keeps the name, whatever the directory says next; and gets it back.
        let renamed = take_in(Some(first.clone()), &person("1", "zoe.b", &["b"])).await.unwrap();
        assert_eq!(
            (renamed.spec.name.as_str(), &renamed.spec.groups[..]),
            ("zoe@corp", &["corp:group/b".to_owned()][..])
        );
        let gone = UserName { name: "zoe@corp".into(), principal: "corp:user/1".into(), disabled: false };
        objects.create(&gone, None).await.unwrap();
        objects.delete::<User>("zoe@corp", renamed.metadata.revision).await.unwrap();
        assert_eq!(take_in(None, &person("3", "zoe", &[])).await.unwrap().spec.name, "zoe-3@corp");
        assert_eq!(take_in(None, &person("1", "zoe", &[])).await.unwrap().spec.name, "zoe@corp");
        let groups = (0..=USER_GROUPS_MAX).map(|number| (number.to_string(), None)).collect();
        let many = Person { groups, ..person("6", "many", &[]) };
        assert!(matches!(take_in(None, &many).await, Err(NotTaken::TooManyGroups(_))));
        for unsound in [
            person("5", "system:admin", &[]),
            person("5", "Drover:x", &[]),
            person("5", "a/b", &[]),
            person("5", " a", &[]),
            person("5", "a\n", &[]),
            person("5", "", &[]),
            person("", "a", &[]),
            person("5\n", "a", &[]),
            person("5", "a", &["x\0"]),
            person("5", "a", &[""]),
        ] {
            let refused = take_in(None, &unsound).await.err();
            assert!(matches!(refused, Some(NotTaken::Id(_) | NotTaken::Name(_))), "{unsound:?}: {refused:?}");
        }
    }
}
