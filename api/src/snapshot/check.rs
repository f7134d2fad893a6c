//! From a document to a snapshot: every object is checked, and every problem is named at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use drover_policy::{ClusterId, Principal};

use super::problems::Problems;
use super::{
    Cluster, ClusterName, Document, MAX_STALENESS_MAX, RESERVED_PREFIXES, Scope, Snapshot, SnapshotInvalid,
    Token, USER_GROUPS_MAX, User, rules,
};
use crate::identity::{GROUPS_SENT_MAX, Identity};
use crate::kinds::{self, TokenScope};
use crate::roster::SignedRoster;

pub(super) fn check(document: Document) -> Result<Snapshot, SnapshotInvalid> {
    let mut problems = Problems::default();
    let issued_at = SystemTime::from(document.issued_at);
    let stale_at = problems.keep("max_staleness_s", stale_at(issued_at, document.max_staleness_s));
    let clusters = clusters(&document.clusters, &mut problems);
    let users = users(&document.users, &mut problems);
    let tokens = tokens(&document.tokens, &clusters, &users, &mut problems);
    let rules = rules::rules(&document, &mut problems);
    let rosters = rosters(document.rosters, &mut problems);
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
            rosters,
        }),
        _ => Err(problems.into()),
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
        let path = format!("clusters[{index}]");
        problems.unique(&mut names, format!("{path}.name"), &cluster.name);
        problems.unique(&mut ids, format!("{path}.id"), &cluster.id);
        let name = problems.keep(format!("{path}.name"), ClusterName::parse(&cluster.name));
        let id = problems.keep(format!("{path}.id"), ClusterId::parse(&cluster.id));
        if let (Some(name), Some(id)) = (name, id) {
            let listed = cluster.groups_listed.as_ref().map(|groups| listed(groups, &path, problems));
            clusters.push(Cluster { name, id, groups_listed: listed });
        }
    }
    clusters
}

fn rosters(written: Vec<SignedRoster>, problems: &mut Problems) -> BTreeMap<ClusterId, Arc<SignedRoster>> {
    let named = written.into_iter().enumerate().filter_map(|(index, roster)| {
        let id = problems.keep(format!("rosters[{index}].cluster"), ClusterId::parse(&roster.cluster))?;
        Some((id, Arc::new(roster)))
    });
    named.collect()
}

fn listed(groups: &BTreeSet<String>, path: &str, problems: &mut Problems) -> BTreeSet<Principal> {
    if groups.len() > GROUPS_SENT_MAX {
        problems.add(format!("{path}.groups_listed"), format!("more than {GROUPS_SENT_MAX} groups"));
    }
    let parsed = groups
        .iter()
        .filter_map(|group| problems.keep(format!("{path}.groups_listed"), Principal::parse(group)));
    parsed.collect()
}

fn users(written: &[kinds::User], problems: &mut Problems) -> Vec<User> {
    let (mut principals, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut users = Vec::with_capacity(written.len());
    for (index, user) in written.iter().enumerate() {
        let path = format!("users[{index}]");
        problems.unique(&mut principals, format!("{path}.principal"), &user.principal);
        problems.unique(&mut names, format!("{path}.name"), &user.name);
        for (field, text) in names_of(user) {
            if RESERVED_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
                problems.add(format!("{path}.{field}"), "begins with a reserved prefix (system: or drover:)");
            }
        }
        problems.keep(&path, sendable(user));
        let principal = problems.keep(format!("{path}.principal"), Principal::parse(&user.principal));
        let groups: Vec<_> = user
            .groups
            .iter()
            .filter_map(|group| problems.keep(format!("{path}.groups"), Principal::parse(group)))
            .collect();
        if let Some(principal) = principal {
            let (name, display_name) = (user.name.clone(), user.display_name.clone());
            users.push(User { principal, name, display_name, groups, disabled: user.disabled });
        }
    }
    users
}

fn names_of(user: &kinds::User) -> impl Iterator<Item = (&'static str, &str)> {
    let groups = user.groups.iter().map(|group| ("groups", group.as_str()));
    [("principal", user.principal.as_str()), ("name", user.name.as_str())].into_iter().chain(groups)
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
        let path = format!("tokens[{index}]");
        // No two share a hash, either: it is of the id, too.
        problems.unique(&mut ids, format!("{path}.id"), &token.id);
        tokens.extend(self::token(token, &path, &user, &cluster, problems));
    }
    tokens
}

fn token(
    written: &kinds::Token,
    path: &str,
    user: impl Fn(&str) -> Option<Principal>,
    cluster: impl Fn(&str) -> Option<ClusterId>,
    problems: &mut Problems,
) -> Option<Token> {
    let user = user(&written.user);
    if user.is_none() {
        problems.add(format!("{path}.user"), "no such user");
    }
    let scope = problems.keep(format!("{path}.scope"), scope(&written.scope, cluster));
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
