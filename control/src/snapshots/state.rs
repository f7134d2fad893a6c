//! What gateways serve from, held with the revision of each change, so that a delta is made from any revision.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use drover_api::kinds::{Binding, Cluster, Enrolment, Kind, Metadata, Object, Role, Token, TokenKind, User};
use drover_api::snapshot::delta::{Changes, Delta};
use drover_api::snapshot::signing::Signing;
use drover_api::snapshot::{Document, FORMAT, READER_MIN, SetAside, put_in};
use drover_api::token::TokenId;
use jiff::Timestamp;

use super::around::Around;
use super::aside::{self, Aside};
use super::index::Index;
use super::signatures::Signatures;
use crate::objects::{Kept, object};
use crate::store::{Change, Revision};

/// Deletions that are remembered for deltas.
const DELETIONS_MAX: usize = 10_000;

/// Objects of a kind and the latest that happened to each.
#[derive(Clone)]
struct Latest<K> {
    objects: BTreeMap<String, (Metadata, Option<K>)>,
    /// Keys by that revision.
    keys: BTreeMap<Revision, String>,
}

impl<K> Default for Latest<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), keys: BTreeMap::new() }
    }
}

#[derive(Clone, Default)]
pub(crate) struct State {
    pub(super) revision: Revision,
    /// What was deleted before this revision is not known.
    pub(super) oldest: Revision,
    clusters: Latest<Cluster>,
    users: Latest<User>,
    tokens: Latest<Token>,
    roles: Latest<Role>,
    bindings: Latest<Binding>,
    /// Enrolments whose certificates are good.
    enrolments: Arc<BTreeSet<String>>,
    /// When those changed last.
    enrolled_at: Revision,
    index: Index,
    /// Records that are none of their kind.
    unreadable: Aside,
    /// What is not published as it was written, those records among it.
    pub(super) aside: Arc<Aside>,
    pub(super) signatures: Signatures,
    /// Of the state when it was last made whole.
    pub(super) around: Arc<Around>,
    /// Tokens that were deleted in place since deletions were last counted.
    deleted: usize,
}

/// How long what is published serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freshness {
    pub issued_at: Timestamp,
    pub max_staleness: Duration,
}

impl State {
    pub(super) fn known_since(oldest: Revision) -> Self {
        Self { oldest, ..Self::default() }
    }

    /// Takes in a change; what is no part of a snapshot only counts, and what cannot be read is set aside.
    pub(super) fn take_in(&mut self, change: Change) {
        self.revision = self.revision.max(change.revision());
        let kind = match &change {
            Change::Put(record) => record.kind.as_str(),
            Change::Deleted { kind, .. } => kind.as_str(),
        };
        let Self { unreadable, index, .. } = self;
        match kind {
            Cluster::KIND => take_in(&mut self.clusters, unreadable, change, |_, _| {}),
            User::KIND => {
                take_in(&mut self.users, unreadable, change, |before, after| index.user(before, after));
            }
            Token::KIND => {
                take_in(&mut self.tokens, unreadable, change, |before, after| index.token(before, after));
            }
            Role::KIND => take_in(&mut self.roles, unreadable, change, |_, _| {}),
            Enrolment::KIND => self.enrol(&change),
            Binding::KIND => {
                take_in(&mut self.bindings, unreadable, change, |before, after| index.binding(before, after));
            }
            _other => {}
        }
    }

    fn enrol(&mut self, change: &Change) {
        let changed = match change {
            Change::Put(record) if self.enrolments.contains(&record.key) => false,
            // Of one that cannot be read, no certificate is good.
            Change::Put(record) => {
                let sound = object::<Enrolment>(record.clone()).is_ok();
                sound && Arc::make_mut(&mut self.enrolments).insert(record.key.clone())
            }
            // Whoever was away may have it still, also where this start never had.
            Change::Deleted { key, .. } => {
                if self.enrolments.contains(key) {
                    Arc::make_mut(&mut self.enrolments).remove(key);
                }
                true
            }
        };
        if changed {
            self.enrolled_at = self.enrolled_at.max(change.revision());
        }
    }

    /// Whether a renewal is all that it is: who is enrolled stays the same.
    fn is_renewal(&self, change: &Change) -> bool {
        matches!(change, Change::Put(record) if self.enrolments.contains(&record.key))
    }

    pub(crate) fn has_enrolment(&self, enrolment: &str) -> bool {
        self.enrolments.contains(enrolment)
    }

    /// Takes in changes of tokens, and signs them. Anything else, and what is not sound, leaves all as it was.
    pub(super) fn change_tokens(&mut self, changes: &[Change], signing: &Signing) -> bool {
        let mut last = BTreeMap::new();
        for change in changes {
            let (kind, key) = match change {
                Change::Put(record) => (record.kind.as_str(), record.key.as_str()),
                Change::Deleted { kind, key, .. } => (kind.as_str(), key.as_str()),
            };
            match kind {
                _ if change.revision() <= self.revision => return false,
                Token::KIND if self.aside.has(Token::KIND, key) => return false,
                Token::KIND => drop(last.insert(key, change)),
                Enrolment::KIND if self.is_renewal(change) => {}
                Cluster::KIND | User::KIND | Role::KIND | Binding::KIND | Enrolment::KIND => return false,
                _no_part_of_it => {}
            }
        }
        let put = last.values().filter_map(|change| match change {
            Change::Put(record) => Some(object::<Token>(record.clone()).map(|object| object.spec)),
            Change::Deleted { .. } => None,
        });
        let Ok(put) = put.collect::<Result<Vec<_>, _>>() else { return false };
        let Ok(put) = self.around.check(&put) else { return false };
        let touched = last.keys().map(|key| TokenId::try_from((*key).to_owned()));
        let Ok(touched) = touched.collect() else { return false };
        let revision = changes.iter().map(Change::revision).fold(self.revision, Revision::max);
        if !self.signatures.next_tokens(signing, &self.around, revision, &put, &touched) {
            return false;
        }
        for change in changes {
            self.deleted += usize::from(matches!(change, Change::Deleted { .. }));
            self.take_in(change.clone());
        }
        if self.deleted > DELETIONS_MAX / 10 {
            self.compact();
        }
        true
    }

    /// Forgets the oldest deletions above the limit: a gateway from before gets the whole state.
    pub(super) fn compact(&mut self) {
        self.deleted = 0;
        let mut deleted = Vec::new();
        collect(&self.clusters, &mut deleted);
        collect(&self.users, &mut deleted);
        collect(&self.tokens, &mut deleted);
        collect(&self.roles, &mut deleted);
        collect(&self.bindings, &mut deleted);
        let Some(surplus) = deleted.len().checked_sub(DELETIONS_MAX).filter(|surplus| *surplus > 0) else {
            return;
        };
        deleted.sort_unstable();
        let last = deleted[surplus - 1];
        self.oldest = self.oldest.max(last);
        forget(&mut self.clusters, last);
        forget(&mut self.users, last);
        forget(&mut self.tokens, last);
        forget(&mut self.roles, last);
        forget(&mut self.bindings, last);
    }

    /// None where it is set aside.
    pub(crate) fn token(&self, id: &str) -> Option<Object<Token>> {
        if self.aside.has(Token::KIND, id) {
            return None;
        }
        let (metadata, spec) = self.tokens.objects.get(id)?;
        Some(Object { metadata: metadata.clone(), spec: spec.clone()? })
    }

    pub(crate) fn tokens_of(&self, principal: &str) -> usize {
        self.index.tokens(principal).len()
    }

    /// How many of a user's tokens have not ended.
    pub(crate) fn lasting_tokens_of(&self, principal: &str, now: Timestamp) -> usize {
        let of = self.index.tokens(principal).iter();
        let of = of.filter_map(|id| self.tokens.objects.get(id.as_str())?.1.as_ref());
        of.filter(|token| now < token.expires_at).count()
    }

    pub(crate) fn bindings_of(&self, principal: &str) -> usize {
        self.index.bindings(principal)
    }

    /// Those that are meant, each with its revision.
    pub(crate) fn tokens(&self, is_meant: impl Fn(&Token) -> bool) -> Vec<(TokenId, Revision)> {
        let tokens =
            self.tokens.objects.values().filter_map(|(metadata, spec)| Some((metadata, spec.as_ref()?)));
        let meant = tokens.filter(|(_, token)| is_meant(token));
        meant.map(|(metadata, token)| (token.id.clone(), metadata.revision)).collect()
    }

    /// The same, with all that were made with one of them, and with those.
    pub(crate) fn tokens_and_made(&self, is_meant: impl Fn(&Token) -> bool) -> Vec<(TokenId, Revision)> {
        let mut meant = self.tokens(is_meant);
        let mut known: HashSet<_> = meant.iter().map(|(id, _)| id.clone()).collect();
        let mut next = 0;
        while let Some((maker, _)) = meant.get(next) {
            let made = self.index.made_with(maker).iter().filter(|id| known.insert((*id).clone()));
            let made =
                made.filter_map(|id| Some((id.clone(), self.tokens.objects.get(id.as_str())?.0.revision)));
            meant.extend(made.collect::<Vec<_>>());
            next += 1;
        }
        meant
    }

    /// The JWTs among those that are meant.
    pub(crate) fn jwts(&self, is_meant: impl Fn(&Token) -> bool) -> Vec<Token> {
        let tokens = self.tokens.objects.values().filter_map(|(_, spec)| spec.as_ref());
        let jwts = tokens.filter(|token| token.kind == TokenKind::Jwt && is_meant(token));
        jwts.cloned().collect()
    }

    pub(crate) fn has_made(&self, token: &TokenId) -> bool {
        !self.index.made_with(token).is_empty()
    }

    pub(crate) fn cluster(&self, id: &str) -> Option<&Cluster> {
        let present = self.clusters.objects.values().filter_map(|(_, spec)| spec.as_ref());
        present
            .filter(|cluster| !self.aside.has(Cluster::KIND, &cluster.name))
            .find(|cluster| cluster.id == id)
    }

    /// A user as it was written, be it sound or not: one who is published, where there are several.
    pub(crate) fn user(&self, principal: &str) -> Option<Object<User>> {
        let names = self.index.names(principal);
        let name = names.iter().rfind(|name| !self.aside.has(User::KIND, name)).or(names.last())?;
        let (metadata, spec) = self.users.objects.get(name)?;
        Some(Object { metadata: metadata.clone(), spec: spec.clone()? })
    }

    /// One who can act: none who is set aside.
    pub(crate) fn published_user(&self, principal: &str) -> Option<Object<User>> {
        self.user(principal).filter(|user| !self.aside.has(User::KIND, &user.spec.name))
    }

    pub(crate) fn aside(&self) -> &Aside {
        &self.aside
    }

    /// Tokens that changed after a revision, or whose users did.
    pub(super) fn tokens_touched_since(&self, revision: Revision) -> HashSet<TokenId> {
        let users = self.users.objects.values().filter(|(metadata, _)| metadata.revision > revision);
        let users: HashSet<_> =
            users.filter_map(|(_, spec)| spec.as_ref().map(|user| user.principal.as_str())).collect();
        let tokens = self.tokens.objects.values().filter_map(|(metadata, spec)| {
            let token = spec.as_ref()?;
            let touched = metadata.revision > revision || users.contains(token.user.as_str());
            touched.then(|| token.id.clone())
        });
        tokens.collect()
    }

    /// With all that is signed of it.
    pub(super) fn signed_document(&self, freshness: Freshness) -> Document {
        let (assertions, rosters) = (self.signatures.assertions(), self.signatures.rosters());
        Document { assertions, rosters, ..self.document(freshness) }
    }

    /// Of what is published.
    pub(super) fn document(&self, freshness: Freshness) -> Document {
        self.document_without(freshness, &self.aside)
    }

    /// Of what there is, sound or not; but for what cannot even be read. The elder of two twins comes first.
    pub(super) fn written(&self, freshness: Freshness) -> Document {
        let mut document = self.document_without(freshness, &self.unreadable);
        document.users.sort_by_cached_key(|user| age_of(&self.users, &user.name));
        document.clusters.sort_by_cached_key(|cluster| age_of(&self.clusters, &cluster.name));
        document
    }

    fn document_without(&self, freshness: Freshness, aside: &Aside) -> Document {
        Document {
            users: objects(&self.users, aside),
            tokens: objects(&self.tokens, aside).into_iter().map(for_gateways).collect(),
            ..self.rules_without(freshness, aside)
        }
    }

    /// What is published, without users and tokens.
    pub(super) fn rules(&self, freshness: Freshness) -> Document {
        self.rules_without(freshness, &self.aside)
    }

    fn rules_without(&self, freshness: Freshness, aside: &Aside) -> Document {
        let mut document = Document {
            format: FORMAT,
            reader_min: READER_MIN,
            revision: self.revision,
            issued_at: freshness.issued_at,
            max_staleness_s: freshness.max_staleness.as_secs(),
            clusters: objects(&self.clusters, aside),
            users: Vec::new(),
            tokens: Vec::new(),
            roles: objects(&self.roles, aside),
            bindings: objects(&self.bindings, aside),
            assertions: None,
            rosters: Vec::new(),
            enrolments: Some((*self.enrolments).clone()),
        };
        put_in(&mut document, aside.stand_ins());
        document
    }

    /// What is set aside of it, beside what the check of all found.
    pub(super) fn unsound(&self, found: Vec<SetAside>) -> Aside {
        let mut aside = self.unreadable.clone();
        aside.extend(found);
        aside
    }

    /// None where only the whole state tells what happened since. What is signed anew is in it from `told_at` on.
    pub(super) fn delta(
        &self,
        from: Revision,
        told_at: Option<Timestamp>,
        freshness: Freshness,
    ) -> Option<Delta> {
        if !(self.oldest..=self.revision).contains(&from) {
            return None;
        }
        let aside = &*self.aside;
        let (users, mut tokens) = (since(&self.users, from, aside), since(&self.tokens, from, aside));
        tokens.put = tokens.put.into_iter().map(for_gateways).collect();
        // With a user all of their tokens are signed again, and else those that changed.
        let signed = users.is_empty().then_some(&tokens.put[..]);
        let (assertions, rosters) = self.signatures.since(from, told_at, signed);
        Some(Delta {
            format: FORMAT,
            reader_min: READER_MIN,
            from,
            revision: self.revision,
            issued_at: freshness.issued_at,
            max_staleness_s: freshness.max_staleness.as_secs(),
            clusters: since(&self.clusters, from, aside),
            users,
            tokens,
            roles: since(&self.roles, from, aside),
            bindings: since(&self.bindings, from, aside),
            assertions,
            rosters,
            enrolments: (self.enrolled_at > from).then(|| (*self.enrolments).clone()),
        })
    }
}

/// Without what control alone sees to: a gateway from before knows nothing of it.
fn for_gateways(token: Token) -> Token {
    Token { idle_s: None, session: None, made_by: None, jwt_ends_at: None, ..token }
}

/// The revisions of what was deleted.
fn collect<K>(latest: &Latest<K>, deleted: &mut Vec<Revision>) {
    deleted.extend(
        latest.objects.values().filter(|(_, spec)| spec.is_none()).map(|(metadata, _)| metadata.revision),
    );
}

fn forget<K>(latest: &mut Latest<K>, last: Revision) {
    let Latest { objects, keys } = latest;
    objects.retain(|_, (metadata, spec)| {
        let stays = spec.is_some() || metadata.revision > last;
        if !stays {
            keys.remove(&metadata.revision);
        }
        stays
    });
}

/// Takes in a change, and tells what was there before and is after it.
fn take_in<K: Kept>(
    latest: &mut Latest<K>,
    unreadable: &mut Aside,
    change: Change,
    tell: impl FnOnce(Option<&K>, Option<&K>),
) {
    let (revision, key) = match &change {
        Change::Put(record) => (record.revision, record.key.clone()),
        Change::Deleted { key, revision, .. } => (*revision, key.clone()),
    };
    let known = latest.objects.get(&key);
    if known.is_some_and(|(known, _)| known.revision >= revision) {
        return;
    }
    unreadable.remove(K::KIND, &key);
    let nothing = Metadata { revision, created_at: Timestamp::UNIX_EPOCH };
    let (metadata, spec) = match change {
        Change::Put(record) => match object::<K>(record.clone()) {
            Ok(Object { metadata, spec }) => (metadata, Some(spec)),
            Err(error) => {
                unreadable.insert(aside::unreadable::<K>(&record, &error));
                (nothing, None)
            }
        },
        Change::Deleted { .. } => (nothing, None),
    };
    tell(known.and_then(|(_, before)| before.as_ref()), spec.as_ref());
    latest.keys.insert(metadata.revision, key.clone());
    if let Some((before, _)) = latest.objects.insert(key, (metadata, spec)) {
        latest.keys.remove(&before.revision);
    }
}

fn objects<K: Kind>(latest: &Latest<K>, aside: &Aside) -> Vec<K> {
    let present = latest.objects.iter().filter_map(|(key, (_, spec))| Some((key, spec.as_ref()?)));
    present.filter(|(key, _)| !aside.has(K::KIND, key)).map(|(_, spec)| spec.clone()).collect()
}

fn age_of<K>(latest: &Latest<K>, key: &str) -> Timestamp {
    latest.objects.get(key).map_or(Timestamp::MAX, |(metadata, _)| metadata.created_at)
}

fn since<K: Kind>(latest: &Latest<K>, from: Revision, aside: &Aside) -> Changes<K> {
    let mut changes = Changes::default();
    for key in latest.keys.range(from + 1..).map(|(_, key)| key) {
        match latest.objects.get(key) {
            // Of what is set aside, gateways know already: see `Checks::check`.
            _ if aside.has(K::KIND, key) => {}
            Some((_, Some(spec))) => changes.put.push(spec.clone()),
            Some((_, None)) => changes.deleted.push(key.clone()),
            None => {}
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<K: Kind + serde::Serialize>(spec: &K, revision: Revision) -> Change {
        let value =
            crate::store::Value { format: K::FORMAT, spec: serde_json::to_vec(spec).unwrap(), secret: None };
        Change::Put(crate::store::Record {
            kind: K::KIND.to_owned(),
            key: spec.key().to_owned(),
            revision,
            created_at: Timestamp::UNIX_EPOCH,
            value,
        })
    }

    /// In any order, and told twice, as a watch may tell it.
    #[test]
    fn what_there_is_of_a_principal_is_what_looking_through_all_finds() {
        let user = |name: &str, principal: &str| User {
            principal: format!("corp:user/{principal}"),
            name: name.to_owned(),
            display_name: None,
            groups: Vec::new(),
            disabled: false,
        };
        let binding = |name: &str, principal: &str| Binding {
            name: name.to_owned(),
            principal: format!("corp:user/{principal}"),
            role: "admin".into(),
            domain: drover_api::kinds::Domain::Global,
            expires_at: None,
        };
        let made = drover_api::token::generate();
        let token = |principal: &str| Token {
            id: made.id.clone(),
            hash: made.hash,
            proof_key: made.proof_key,
            user: format!("corp:user/{principal}"),
            kind: drover_api::kinds::TokenKind::Bot,
            scope: drover_api::kinds::TokenScope::All,
            expires_at: Timestamp::MAX,
            idle_s: None,
            session: None,
            made_by: None,
            jwt_ends_at: None,
        };
        let gone = |kind: &str, key: &str, revision| Change::Deleted {
            kind: kind.into(),
            key: key.into(),
            revision,
        };
        let id = made.id.as_str();
        let mut state = State::known_since(0);
        for (change, expected) in [
            (record(&user("zoe", "1"), 1), ["1:zoe 0 0", "2:- 0 0"]),
            (record(&token("1"), 2), ["1:zoe 1 0", "2:- 0 0"]),
            (record(&token("1"), 3), ["1:zoe 1 0", "2:- 0 0"]),
            (record(&binding("a", "1"), 4), ["1:zoe 1 1", "2:- 0 0"]),
            (record(&binding("b", "1"), 5), ["1:zoe 1 2", "2:- 0 0"]),
            // An older one that comes late.
            (record(&binding("b", "2"), 5), ["1:zoe 1 2", "2:- 0 0"]),
            (record(&binding("b", "2"), 6), ["1:zoe 1 1", "2:- 0 1"]),
            (gone(Binding::KIND, "a", 7), ["1:zoe 1 0", "2:- 0 1"]),
            (gone(Binding::KIND, "a", 8), ["1:zoe 1 0", "2:- 0 1"]),
            (record(&token("2"), 9), ["1:zoe 0 0", "2:- 1 1"]),
            (gone(Token::KIND, id, 10), ["1:zoe 0 0", "2:- 0 1"]),
            // Comes back by another name before the first one goes.
            (record(&user("zoe-2", "1"), 11), ["1:zoe-2 0 0", "2:- 0 1"]),
            (gone(User::KIND, "zoe", 12), ["1:zoe-2 0 0", "2:- 0 1"]),
            (record(&user("zoe-2", "2"), 13), ["1:- 0 0", "2:zoe-2 0 1"]),
            (gone(User::KIND, "zoe-2", 14), ["1:- 0 0", "2:- 0 1"]),
        ] {
            state.take_in(change);
            let found = ["1", "2"].map(|id| {
                let principal = format!("corp:user/{id}");
                let user = state.user(&principal).map_or("-".to_owned(), |user| user.spec.name);
                format!("{id}:{user} {} {}", state.tokens_of(&principal), state.bindings_of(&principal))
            });
            assert_eq!(found, expected, "at {}", state.revision);
        }
    }

    #[test]
    fn the_oldest_deletions_are_forgotten_above_the_limit_and_who_is_from_before_gets_no_delta() {
        let mut state = State::known_since(0);
        let total = DELETIONS_MAX as u64 + 3;
        for revision in 1..=total {
            let (kind, key) = (Token::KIND.to_owned(), format!("t{revision}"));
            state.take_in(Change::Deleted { kind, key, revision });
        }
        let freshness =
            Freshness { issued_at: Timestamp::UNIX_EPOCH, max_staleness: Duration::from_secs(60) };
        assert_eq!(state.delta(0, None, freshness).unwrap().tokens.deleted.len() as u64, total);
        state.compact();
        assert!(state.delta(2, None, freshness).is_none());
        assert_eq!(state.delta(3, None, freshness).unwrap().tokens.deleted.len(), DELETIONS_MAX);
        state.compact();
        assert!(state.delta(3, None, freshness).is_some());
    }
}
