//! Control's signatures over who presents which token, as they reach gateways; see [`crate::assertion`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use drover_policy::Principal;
use serde::{Deserialize, Serialize};

use crate::assertion::Assertion;
use crate::identity::{EXTRA_DISPLAY_NAME, EXTRA_TOKEN_ID, GROUPS_SENT_MAX, Identity, IdentityMalformed};
use crate::signed::{Context, KeyId, PublicKey, Signature, Signer};
use crate::token::TokenId;

/// Signatures of one key and one time, by token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertions {
    pub epoch: Epoch,
    pub signatures: BTreeMap<TokenId, Signature>,
}

/// Since when and for how long assertions are good, and by which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    pub key: KeyId,
    pub issued_at_s: u64,
    pub expires_at_s: u64,
}

/// A user and a token of theirs, as far as an assertion speaks of them.
#[derive(Clone, Copy, Debug)]
pub struct Asserted<'a> {
    pub name: &'a str,
    pub principal: &'a Principal,
    pub display_name: Option<&'a str>,
    pub groups: &'a [Principal],
    pub token: &'a TokenId,
    pub proof_key: PublicKey,
    /// Of the token: its assertion ends no later.
    pub expires_at: SystemTime,
}

impl Asserted<'_> {
    /// The bytes that control signs and that a gateway sends. Of a user in more groups than travel, they hold those
    /// that some cluster has listed.
    pub fn bytes(&self, epoch: &Epoch, listed: &BTreeSet<Principal>) -> Result<Vec<u8>, IdentityMalformed> {
        let groups_left_out = self.groups.len() > GROUPS_SENT_MAX;
        let groups = self.groups.iter().filter(|group| !groups_left_out || listed.contains(*group));
        let display_name =
            self.display_name.iter().map(|name| (EXTRA_DISPLAY_NAME.to_owned(), vec![(*name).to_owned()]));
        let token = (EXTRA_TOKEN_ID.to_owned(), vec![self.token.to_string()]);
        let identity = Identity {
            user: self.name.to_owned(),
            uid: self.principal.as_str().to_owned(),
            groups: groups.map(|group| group.as_str().to_owned()).collect(),
            extras: display_name.chain([token]).collect(),
        };
        let Epoch { issued_at_s, expires_at_s, .. } = *epoch;
        let ends = self.expires_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let expires_at_s = expires_at_s.min(ends.as_secs());
        Assertion { proof_key: self.proof_key, issued_at_s, expires_at_s, groups_left_out, identity }.encode()
    }

    pub fn sign(
        &self,
        signer: &Signer,
        epoch: &Epoch,
        listed: &BTreeSet<Principal>,
    ) -> Result<Signature, IdentityMalformed> {
        Ok(signer.sign(Context::Assertion, &self.bytes(epoch, listed)?))
    }
}

impl Assertions {
    /// Takes in what is new: more of the same time, or those of another time in their place.
    pub(super) fn apply(self, to: &mut Option<Self>) {
        match to {
            Some(present) if present.epoch == self.epoch => present.signatures.extend(self.signatures),
            _ => *to = Some(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_assertion_ends_with_its_time_or_with_its_token() {
        let signer = Signer::from_seed(&[1; 32]);
        let epoch = Epoch { key: signer.id(), issued_at_s: 1000, expires_at_s: 4600 };
        let (principal, token) = (Principal::parse("local:user/7").unwrap(), crate::token::generate());
        for (ends, expected) in [(2000, 2000), (9000, 4600)] {
            let asserted = Asserted {
                name: "zoe",
                principal: &principal,
                display_name: None,
                groups: &[],
                token: &token.id,
                proof_key: token.proof_key,
                expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(ends),
            };
            let bytes = asserted.bytes(&epoch, &BTreeSet::new()).unwrap();
            assert_eq!(Assertion::decode(&bytes).unwrap().expires_at_s, expected);
        }
    }

    #[test]
    fn of_too_many_groups_those_that_are_listed_are_in_it() {
        let signer = Signer::from_seed(&[1; 32]);
        let epoch = Epoch { key: signer.id(), issued_at_s: 1000, expires_at_s: 4600 };
        let (principal, token) = (Principal::parse("local:user/7").unwrap(), crate::token::generate());
        let group = |number: usize| Principal::parse(&format!("local:group/g{number}")).unwrap();
        let listed = [group(3), group(9999)].into();
        for (count, left_out, sent) in
            [(GROUPS_SENT_MAX, false, GROUPS_SENT_MAX), (GROUPS_SENT_MAX + 1, true, 1)]
        {
            let groups: Vec<_> = (0..count).map(group).collect();
            let asserted = Asserted {
                name: "zoe",
                principal: &principal,
                display_name: None,
                groups: &groups,
                token: &token.id,
                proof_key: token.proof_key,
                expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(9000),
            };
            let decoded = Assertion::decode(&asserted.bytes(&epoch, &listed).unwrap()).unwrap();
            assert_eq!((decoded.groups_left_out, decoded.identity.groups.len()), (left_out, sent));
        }
    }
}
