//! What of the state is not published as it was written, and why.

use std::collections::{BTreeMap, BTreeSet};

use drover_api::kinds::{Binding, Kind, Role, Token};
use drover_api::snapshot::{SetAside, StandIn, Unsound, denying_binding, denying_role};
use drover_api::token::TokenId;
use drover_policy::RoleName;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::{error, info};

use crate::objects::{Kept, NoSecret, ObjectsError};
use crate::store::{Record, Revision};

/// Objects that one change of what is set aside names in the log, a line each.
const LOGGED_MAX: usize = 20;

type Key = (&'static str, String);

/// Objects that are set aside, by kind and key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Aside(BTreeMap<Key, SetAside>);

impl Aside {
    pub(super) fn insert(&mut self, aside: SetAside) {
        self.0.insert((aside.kind, aside.key.clone()), aside);
    }

    pub(super) fn remove(&mut self, kind: &'static str, key: &str) {
        if !self.0.is_empty() {
            self.0.remove(&(kind, key.to_owned()));
        }
    }

    pub(super) fn extend(&mut self, more: impl IntoIterator<Item = SetAside>) {
        more.into_iter().for_each(|aside| self.insert(aside));
    }

    pub(crate) fn has(&self, kind: &'static str, key: &str) -> bool {
        !self.0.is_empty() && self.0.contains_key(&(kind, key.to_owned()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SetAside> {
        self.0.values()
    }

    pub(super) fn stand_ins(&self) -> impl Iterator<Item = StandIn> {
        self.iter().filter_map(|aside| aside.stand_in.clone())
    }

    /// Tokens of one of the two that are not in the other: what is signed of them changes with no change of theirs.
    pub(super) fn tokens_unlike(&self, other: &Self) -> BTreeSet<TokenId> {
        let is_token = |key: &&Key| key.0 == Token::KIND;
        let of = |one: &Self, other: &Self| {
            let unlike = one.0.keys().filter(is_token).filter(|key| !other.0.contains_key(key));
            unlike.filter_map(|(_, key)| TokenId::try_from(key.clone()).ok()).collect::<Vec<_>>()
        };
        of(self, other).into_iter().chain(of(other, self)).collect()
    }

    /// Says what came and went.
    pub(super) fn tell(&self, before: &Self) {
        let came = self.0.iter().filter(|(key, _)| !before.0.contains_key(*key));
        let mut unnamed = 0;
        for (named, ((kind, key), SetAside { unsound, .. })) in came.enumerate() {
            if named < LOGGED_MAX {
                error!(kind, key, problem = %unsound, "an object is set aside: it is not sound, and its owner's access ends");
            } else {
                unnamed += 1;
            }
        }
        if unnamed > 0 {
            error!(objects = unnamed, "more objects are set aside");
        }
        for (kind, key) in before.0.keys().filter(|key| !self.0.contains_key(*key)).take(LOGGED_MAX) {
            info!(kind, key, "an object is set aside no more");
        }
        for (kind, count) in self.counts() {
            metrics::gauge!("control_objects_set_aside", "kind" => kind).set(count as f64);
        }
    }

    /// How many of each kind, none where nothing is.
    pub(crate) fn summary(&self) -> Option<String> {
        let counts = self.counts().into_iter().filter(|(_, count)| *count > 0);
        let counts: Vec<_> = counts.map(|(kind, count)| format!("{count} {kind}")).collect();
        (!counts.is_empty()).then(|| counts.join(", "))
    }

    /// Of every kind, so that one of which there are none any more is said to have none.
    fn counts(&self) -> BTreeMap<&'static str, usize> {
        use drover_api::kinds::{Cluster, User};
        let kinds = [Binding::KIND, Cluster::KIND, Role::KIND, Token::KIND, User::KIND];
        let mut counts: BTreeMap<_, _> = kinds.into_iter().map(|kind| (kind, 0)).collect();
        for (kind, _) in self.0.keys() {
            *counts.entry(*kind).or_default() += 1;
        }
        counts
    }

    /// Of what is set aside; empty where nothing is.
    pub(super) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for ((kind, key), SetAside { stand_in, .. }) in &self.0 {
            hash.update(format!("{kind}/{}/{key}/{stand_in:?}", key.len()));
        }
        if self.0.is_empty() { String::new() } else { format!("{:x}", hash.finalize()) }
    }
}

/// A record that is none of its kind.
pub(super) fn unreadable<K: Kept>(record: &Record, error: &ObjectsError) -> SetAside {
    let key = record.key.clone();
    let stand_in = match K::KIND {
        Role::KIND => RoleName::parse(&key).is_ok().then(|| StandIn::Role(denying_role(&key))),
        Binding::KIND => denied(record).map(StandIn::Binding),
        _ => None,
    };
    SetAside { kind: K::KIND, key, unsound: Unsound { field: "", problem: error.to_string() }, stand_in }
}

/// Where it can be read whose binding it is, they are denied everything: it may have denied something.
fn denied(record: &Record) -> Option<Binding> {
    #[derive(Deserialize)]
    struct Principal {
        principal: String,
    }
    let Principal { principal } = serde_json::from_slice(&record.value.spec).ok()?;
    denying_binding(&Binding {
        name: record.key.clone(),
        principal,
        role: String::new(),
        domain: drover_api::kinds::Domain::Global,
        expires_at: None,
    })
}

/// What was set aside when that changed last: no delta reaches over such a change, of whichever start of control.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    pub digest: String,
    pub revision: Revision,
}

impl Note {
    pub(super) const KEY: &'static str = "state";
}

impl Kind for Note {
    const KIND: &'static str = "SetAside";
    const PLURAL: &'static str = "setaside";

    fn key(&self) -> &str {
        Self::KEY
    }
}

impl Kept for Note {
    type Secret = NoSecret;
}
