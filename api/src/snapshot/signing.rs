//! Makes of a state what control signs: an assertion for each token, and a roster for each cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drover_policy::{ClusterId, Holdings, Principal};
use jiff::Timestamp;

use super::assertions::{Asserted, Assertions, Epoch};
use super::{Snapshot, Token, User};
use crate::impersonate::Right;
use crate::roster::{FORMAT, Roster, SignedRoster, Subject};
use crate::signed::Signer;

/// Control's key, and the certificates of all keys whose signatures are good.
#[derive(Debug)]
pub struct Signing {
    pub signer: Signer,
    /// In DER.
    pub certificates: Vec<Vec<u8>>,
}

/// When something is signed, and for how long it is good.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    pub issued_at: Timestamp,
    pub lifetime: Duration,
}

impl Term {
    fn expires_at(&self) -> Timestamp {
        self.issued_at.saturating_add(self.lifetime).unwrap_or(Timestamp::MAX)
    }
}

impl Signing {
    pub fn epoch(&self, term: Term) -> Epoch {
        let seconds = |at: Timestamp| u64::try_from(at.as_second()).unwrap_or(0);
        let (issued_at_s, expires_at_s) = (seconds(term.issued_at), seconds(term.expires_at()));
        Epoch { key: self.signer.id(), issued_at_s, expires_at_s }
    }

    /// Assertions for tokens, by their users; for those of disabled users there are none.
    pub fn assertions<'a>(
        &self,
        user: impl Fn(&Principal) -> Option<&'a User>,
        listed: &BTreeSet<Principal>,
        tokens: impl IntoIterator<Item = &'a Token>,
        epoch: Epoch,
    ) -> Assertions {
        let sign = |token: &Token| {
            let user = user(&token.user).filter(|user| !user.disabled)?;
            // A snapshot's users can be sent: the signature is there.
            let signature = asserted(user, token).sign(&self.signer, &epoch, listed).ok()?;
            Some((token.id.clone(), signature))
        };
        Assertions { epoch, signatures: tokens.into_iter().filter_map(sign).collect() }
    }

    pub fn roster(&self, roster: &Roster) -> Result<SignedRoster, serde_json::Error> {
        SignedRoster::sign(roster, &self.signer, &self.certificates)
    }
}

pub fn asserted<'a>(user: &'a User, token: &'a Token) -> Asserted<'a> {
    Asserted {
        name: &user.name,
        principal: &user.principal,
        display_name: user.display_name.as_deref(),
        groups: &user.groups,
        token: &token.id,
        proof_key: token.proof_key,
        expires_at: token.expires_at,
    }
}

impl Snapshot {
    /// Groups that some cluster has listed for users who are in too many.
    pub fn groups_listed(&self) -> BTreeSet<Principal> {
        self.clusters.iter().filter_map(|cluster| cluster.groups_listed.as_ref()).flatten().cloned().collect()
    }

    /// What there is to say to each cluster's agents, unsigned.
    pub fn rosters<'a>(
        &'a self,
        holdings: &'a Holdings,
        disabled: &'a BTreeSet<Principal>,
        term: Term,
    ) -> impl Iterator<Item = (ClusterId, Roster)> + 'a {
        let text = |principal: &Principal| principal.as_str().to_owned();
        self.clusters.iter().map(move |cluster| {
            let subjects: BTreeMap<_, _> = holdings
                .of(&cluster.id)
                .into_iter()
                .map(|(principal, holding)| {
                    let right = |(resource, name)| Right { resource, name };
                    let role_groups = holding.role_groups.iter().map(|group| group.to_string()).collect();
                    let impersonate = holding.impersonate.into_iter().map(right).collect();
                    (text(principal), Subject { role_groups, impersonate })
                })
                .collect();
            let roster = Roster {
                format: FORMAT,
                cluster: cluster.id.as_str().to_owned(),
                revision: self.revision,
                issued_at: term.issued_at,
                expires_at: term.expires_at(),
                subjects,
                disabled: disabled.iter().map(text).collect(),
                groups_listed: cluster.groups_listed.as_ref().map(|groups| groups.iter().map(text).collect()),
            };
            (cluster.id.clone(), roster)
        })
    }
}
