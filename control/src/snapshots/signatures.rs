//! What is signed of the published state, each signature with the revision that it was made at.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use drover_api::kinds;
use drover_api::roster::{Roster, SignedRoster};
use drover_api::signed::Signature;
use drover_api::snapshot::assertions::{Assertions, Epoch};
use drover_api::snapshot::delta::Changes;
use drover_api::snapshot::signing::{Signing, Term};
use drover_api::snapshot::{Snapshot, Token};
use drover_api::token::TokenId;
use drover_policy::{ClusterId, Holdings, Principal};
use jiff::Timestamp;

use super::around::Around;
use crate::store::Revision;

#[derive(Clone, Default)]
pub(crate) struct Signatures {
    revision: Revision,
    epoch: Option<Epoch>,
    epoch_began: Timestamp,
    assertions: BTreeMap<TokenId, (Signature, Revision)>,
    rosters: BTreeMap<ClusterId, (Content, SignedRoster)>,
    listed: BTreeSet<Principal>,
    /// Users who went or were disabled, for as long as an assertion of theirs may be good.
    gone: BTreeMap<Principal, Timestamp>,
    /// Users who could act at the last time.
    acting: HashSet<Principal>,
}

/// SHA-256 over what a roster says, but for its times and revision.
type Content = [u8; 32];

impl Signatures {
    /// Whatever is signed next is signed anew, and for a new time.
    pub(super) fn forget_time(&mut self) {
        self.epoch = None;
        self.rosters.clear();
    }

    /// Of the state that was signed last.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// Signs what changed since the last time. `touched` has the tokens that changed, or whose users did.
    pub(super) fn next(
        &mut self,
        signing: &Signing,
        snapshot: &Snapshot,
        around: &Around,
        holdings: &Holdings,
        term: Term,
        touched: &HashSet<TokenId>,
    ) -> anyhow::Result<()> {
        let epoch = self.epoch.filter(|epoch| self.is_good(epoch, signing, around));
        let whole = epoch.is_none();
        let epoch = epoch.unwrap_or_else(|| signing.epoch(term));
        let tokens = snapshot.tokens.iter().filter(|token| whole || touched.contains(&token.id));
        let user = |principal: &Principal| around.user(principal);
        let Assertions { signatures, .. } = signing.assertions(user, &around.listed, tokens, epoch);
        if whole {
            self.assertions.clear();
            (self.epoch, self.epoch_began) = (Some(epoch), term.issued_at);
            self.listed.clone_from(&around.listed);
        } else {
            let present: HashSet<_> = snapshot.tokens.iter().map(|token| &token.id).collect();
            // Those of a user who was disabled are touched, and not signed again.
            self.assertions.retain(|token, _| present.contains(token) && !touched.contains(token));
        }
        let made = signatures.into_iter().map(|(token, signature)| (token, (signature, snapshot.revision)));
        self.assertions.extend(made);
        self.revision = snapshot.revision;
        self.note_gone(snapshot, term);
        self.sign_rosters(signing, snapshot, holdings, term)
    }

    fn is_good(&self, epoch: &Epoch, signing: &Signing, around: &Around) -> bool {
        epoch.key == signing.signer.id() && around.listed == self.listed
    }

    /// Where only tokens changed: signs those that are there, and forgets those that are not. Whether that could be
    /// done by the time and the key of the others.
    pub(super) fn next_tokens<'a>(
        &mut self,
        signing: &Signing,
        around: &'a Around,
        revision: Revision,
        present: impl IntoIterator<Item = &'a Token>,
        touched: &HashSet<TokenId>,
    ) -> bool {
        let Some(epoch) = self.epoch.filter(|epoch| self.is_good(epoch, signing, around)) else {
            return false;
        };
        let user = |principal: &Principal| around.user(principal);
        let Assertions { signatures, .. } = signing.assertions(user, &around.listed, present, epoch);
        for token in touched {
            self.assertions.remove(token);
        }
        self.assertions
            .extend(signatures.into_iter().map(|(token, signature)| (token, (signature, revision))));
        self.revision = revision;
        true
    }

    fn note_gone(&mut self, snapshot: &Snapshot, term: Term) {
        let acting: HashSet<_> =
            snapshot.users.iter().filter(|user| !user.disabled).map(|user| user.principal.clone()).collect();
        let left = self.acting.difference(&acting).map(|principal| (principal.clone(), term.issued_at));
        self.gone.extend(left.collect::<Vec<_>>());
        let over =
            |since: Timestamp| since.saturating_add(term.lifetime * 2).is_ok_and(|end| end < term.issued_at);
        self.gone.retain(|principal, since| !acting.contains(principal) && !over(*since));
        self.acting = acting;
    }

    fn sign_rosters(
        &mut self,
        signing: &Signing,
        snapshot: &Snapshot,
        holdings: &Holdings,
        term: Term,
    ) -> anyhow::Result<()> {
        let disabled = self.gone.keys().cloned().collect();
        let mut rosters = BTreeMap::new();
        for (cluster, roster) in snapshot.rosters(holdings, &disabled, term) {
            let content = content(&roster)?;
            let kept = self.rosters.remove(&cluster).filter(|(before, _)| *before == content);
            let signed = match kept {
                Some((_, signed)) => signed,
                None => signing.roster(&roster)?,
            };
            rosters.insert(cluster, (content, signed));
        }
        self.rosters = rosters;
        Ok(())
    }

    pub(super) fn assertions(&self) -> Option<Assertions> {
        let signatures = self.assertions.iter().map(|(token, (signature, _))| (token.clone(), *signature));
        Some(Assertions { epoch: self.epoch?, signatures: signatures.collect() })
    }

    pub(super) fn rosters(&self) -> Vec<SignedRoster> {
        self.rosters.values().map(|(_, signed)| signed.clone()).collect()
    }

    /// What a gateway lacks that has a revision, and was told last at a time; all where it was not told yet. Where
    /// `signed` names tokens, no others were signed since the revision.
    pub(super) fn since(
        &self,
        from: Revision,
        told_at: Option<Timestamp>,
        signed: Option<&[kinds::Token]>,
    ) -> (Option<Assertions>, Changes<SignedRoster>) {
        let told = |at: Timestamp| told_at.is_some_and(|told_at| at <= told_at);
        let all = !told(self.epoch_began);
        let signatures: BTreeMap<_, _> = match signed.filter(|_| !all) {
            Some(tokens) => {
                let signature = |token: &kinds::Token| {
                    let (signature, _) = self.assertions.get(&token.id)?;
                    Some((token.id.clone(), *signature))
                };
                tokens.iter().filter_map(signature).collect()
            }
            None => {
                let made = self.assertions.iter().filter(|(_, (_, made_at))| all || *made_at > from);
                made.map(|(token, (signature, _))| (token.clone(), *signature)).collect()
            }
        };
        let some = self.epoch.filter(|_| all || !signatures.is_empty());
        let put = self.rosters.values().map(|(_, signed)| signed).filter(|signed| !told(signed.issued_at));
        let rosters = Changes { put: put.cloned().collect(), deleted: Vec::new() };
        (some.map(|epoch| Assertions { epoch, signatures }), rosters)
    }
}

fn content(roster: &Roster) -> Result<Content, serde_json::Error> {
    use sha2::Digest;
    let said = serde_json::to_vec(&(&roster.subjects, &roster.disabled, &roster.groups_listed))?;
    Ok(sha2::Sha256::digest(said).into())
}
