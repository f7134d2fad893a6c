//! From a document to a snapshot: every object is checked, and every problem is named at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use drover_policy::{ClusterId, Principal};

use super::problems::{At, Field, Problems};
use super::{
    Cluster, ClusterName, Document, MAX_STALENESS_MAX, Scope, Snapshot, SnapshotInvalid, Token,
    USER_GROUPS_MAX, User, rules,
};
use crate::identity::{GROUPS_SENT_MAX, Identity};
use crate::kinds::{self, TokenScope};
use crate::roster::SignedRoster;
use crate::texts::{DisplayName, UserName};

/// The snapshot, or what is wrong with the document, which comes back.
pub(super) fn check(document: Document) -> Result<Snapshot, Box<(Document, Problems)>> {
    let mut problems = Problems::default();
    let issued_at = SystemTime::from(document.issued_at);
    let stale_at = stale_at(issued_at, document.max_staleness_s);
    let stale_at = stale_at.inspect_err(|problem| problems.of_document("max_staleness_s", problem)).ok();
    let clusters = clusters(&document.clusters, &mut problems);
    let users = users(&document.users, &mut problems);
    let tokens = tokens(&document.tokens, &clusters, &users, &mut problems);
    let rules = rules::rules(&document, &mut problems);
    let rosters = rosters(&document.rosters, &mut problems);
    match (stale_at, problems.is_empty()) {
        (Some(stale_at), true) => Ok(Snapshot {
            revision: document.revision,
            issued_at,
            stale_at,
            clusters,
            users,
            tokens,
            rules,
            assertions: document.assertions,
            enrolments: document.enrolments,
            rosters: rosters.into_iter().zip(document.rosters.into_iter().map(Arc::new)).collect(),
        }),
        _ => Err(Box::new((document, problems))),
    }
}

pub(super) fn stale_at(issued_at: SystemTime, max_staleness_s: u64) -> Result<SystemTime, String> {
    let max = MAX_STALENESS_MAX.as_secs();
    if !(1..=max).contains(&max_staleness_s) {
        return Err(format!("must be 1 to {max}"));
    }
    issued_at
        .checked_add(Duration::from_secs(max_staleness_s))
        .ok_or_else(|| "beyond the end of time".to_owned())
}

fn clusters(written: &[kinds::Cluster], problems: &mut Problems) -> Vec<Cluster> {
    let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
    let mut clusters = Vec::with_capacity(written.len());
    for (index, cluster) in written.iter().enumerate() {
        let at = At(Field::Clusters, index);
        problems.unique(&mut names, at, "name", &cluster.name);
        problems.unique(&mut ids, at, "id", &cluster.id);
        clusters.extend(self::cluster(cluster, at, problems));
    }
    clusters
}

pub(super) fn cluster(written: &kinds::Cluster, at: At, problems: &mut Problems) -> Option<Cluster> {
    let name = problems.keep(at, "name", ClusterName::parse(&written.name));
    let id = problems.keep(at, "id", ClusterId::parse(&written.id));
    let groups_listed = written.groups_listed.as_ref().map(|groups| listed(groups, at, problems));
    Some(Cluster { name: name?, id: id?, groups_listed })
}

/// The cluster of each.
fn rosters(written: &[SignedRoster], problems: &mut Problems) -> Vec<ClusterId> {
    let id = |(index, roster): (usize, &SignedRoster)| {
        problems.keep(At(Field::Rosters, index), "cluster", ClusterId::parse(&roster.cluster))
    };
    written.iter().enumerate().filter_map(id).collect()
}

fn listed(groups: &BTreeSet<String>, at: At, problems: &mut Problems) -> BTreeSet<Principal> {
    if groups.len() > GROUPS_SENT_MAX {
        problems.add(at, "groups_listed", format!("more than {GROUPS_SENT_MAX} groups"));
    }
    let parsed =
        groups.iter().filter_map(|group| problems.keep(at, "groups_listed", Principal::parse(group)));
    parsed.collect()
}

fn users(written: &[kinds::User], problems: &mut Problems) -> Vec<User> {
    let (mut principals, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut users = Vec::with_capacity(written.len());
    for (index, user) in written.iter().enumerate() {
        let at = At(Field::Users, index);
        problems.unique(&mut principals, at, "principal", &user.principal);
        problems.unique(&mut names, at, "name", &user.name);
        users.extend(self::user(user, at, problems));
    }
    users
}

pub(super) fn user(written: &kinds::User, at: At, problems: &mut Problems) -> Option<User> {
    let name = problems.keep(at, "name", UserName::parse(&written.name));
    if let Some(display_name) = &written.display_name {
        match problems.keep(at, "display_name", DisplayName::parse(display_name)) {
            Some(Some(sound)) if sound.as_str() == display_name => {}
            Some(_) => problems.add(at, "display_name", "is empty, or begins or ends with white space"),
            None => {}
        }
    }
    problems.keep(at, "", sendable(written));
    let principal = problems.keep(at, "principal", Principal::parse(&written.principal));
    if principal.as_ref().is_some_and(Principal::is_group) {
        problems.add(at, "principal", "is a group's");
    }
    let groups: Vec<_> = written
        .groups
        .iter()
        .filter_map(|group| problems.keep(at, "groups", Principal::parse(group)))
        .collect();
    Some(User {
        principal: principal?,
        name: name?.as_str().to_owned(),
        display_name: written.display_name.clone(),
        groups,
        disabled: written.disabled,
    })
}

/// A user who could not be written into a stream's header must not be found out at the first request.
fn sendable(user: &kinds::User) -> Result<(), String> {
    if user.groups.len() > USER_GROUPS_MAX {
        return Err(format!("more than {USER_GROUPS_MAX} groups"));
    }
    let display_name = user.display_name.clone().map(|name| ("name".to_owned(), vec![name]));
    let mut identity = Identity {
        user: user.name.clone(),
        uid: user.principal.clone(),
        groups: BTreeSet::new(),
        extras: display_name.into_iter().collect(),
    };
    let sound = |identity: &Identity| identity.encode().map(drop).map_err(|error| error.to_string());
    sound(&identity)?;
    user.groups.chunks(GROUPS_SENT_MAX).try_for_each(|some| {
        identity.groups = some.iter().cloned().collect();
        sound(&identity)
    })
}

fn tokens(
    written: &[kinds::Token],
    clusters: &[Cluster],
    users: &[User],
    problems: &mut Problems,
) -> Vec<Token> {
    let clusters: BTreeMap<_, _> =
        clusters.iter().map(|cluster| (cluster.id.as_str(), &cluster.id)).collect();
    let users: BTreeMap<_, _> = users.iter().map(|user| (user.principal.as_str(), &user.principal)).collect();
    let user = |principal: &str| users.get(principal).copied().cloned();
    let cluster = |id: &str| clusters.get(id).copied().cloned();
    tokens_of(written, user, cluster, problems)
}

/// Tokens as written, for a state whose users and clusters are known; all of them, or what is wrong with some.
pub fn changed_tokens(
    written: &[kinds::Token],
    has_user: impl Fn(&Principal) -> bool,
    has_cluster: impl Fn(&ClusterId) -> bool,
) -> Result<Vec<Token>, SnapshotInvalid> {
    let user = |text: &str| Principal::parse(text).ok().filter(&has_user);
    let cluster = |text: &str| ClusterId::parse(text).ok().filter(&has_cluster);
    let mut problems = Problems::default();
    let tokens = tokens_of(written, user, cluster, &mut problems);
    if problems.is_empty() { Ok(tokens) } else { Err(problems.into()) }
}

fn tokens_of(
    written: &[kinds::Token],
    user: impl Fn(&str) -> Option<Principal>,
    cluster: impl Fn(&str) -> Option<ClusterId>,
    problems: &mut Problems,
) -> Vec<Token> {
    let mut ids = BTreeSet::new();
    let mut tokens = Vec::with_capacity(written.len());
    for (index, token) in written.iter().enumerate() {
        let at = At(Field::Tokens, index);
        // No two share a hash, either: it is of the id, too.
        problems.unique(&mut ids, at, "id", &token.id);
        tokens.extend(self::token(token, at, &user, &cluster, problems));
    }
    tokens
}

pub(super) fn token(
    written: &kinds::Token,
    at: At,
    user: impl Fn(&str) -> Option<Principal>,
    cluster: impl Fn(&str) -> Option<ClusterId>,
    problems: &mut Problems,
) -> Option<Token> {
    let user = user(&written.user);
    if user.is_none() {
        problems.add(at, "user", "no such user");
    }
    let scope = problems.keep(at, "scope", scope(&written.scope, cluster));
    Some(Token {
        id: written.id.clone(),
        hash: written.hash,
        proof_key: written.proof_key,
        user: user?,
        kind: written.kind,
        scope: scope?,
        expires_at: SystemTime::from(written.expires_at),
    })
}

fn scope(written: &TokenScope, cluster: impl Fn(&str) -> Option<ClusterId>) -> Result<Scope, String> {
    match written {
        TokenScope::All => Ok(Scope::All),
        TokenScope::Clusters(ids) if ids.is_empty() => {
            Err("names no cluster: such a token could be shown nowhere".to_owned())
        }
        TokenScope::Clusters(ids) => ids
            .iter()
            .map(|id| cluster(id).ok_or_else(|| format!("no cluster {id:?}")))
            .collect::<Result<_, _>>()
            .map(Scope::Clusters),
    }
}
