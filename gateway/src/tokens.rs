//! The tokens of one revision, in parts that revisions share: a change copies the part that it is in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use drover_api::signed::Signature;
use drover_api::snapshot::Token;
use drover_api::snapshot::assertions::{Assertions, Epoch};
use drover_api::token::TokenId;

/// Some 240 of 240,000 tokens are in each.
const PARTS: usize = 1024;

#[derive(Clone, Debug)]
struct Held {
    token: Token,
    signature: Option<Signature>,
}

#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    /// Of all signatures.
    epoch: Option<Epoch>,
    parts: Vec<Arc<HashMap<TokenId, Held>>>,
}

impl Tokens {
    pub(crate) fn new(tokens: Vec<Token>, assertions: Option<Assertions>) -> Self {
        let mut parts: Vec<HashMap<_, Held>> = vec![HashMap::new(); PARTS];
        for token in tokens {
            parts[part(&token.id)].insert(token.id.clone(), Held { token, signature: None });
        }
        let (epoch, signatures) = match assertions {
            Some(Assertions { epoch, signatures }) => (Some(epoch), signatures),
            None => (None, BTreeMap::new()),
        };
        for (id, signature) in signatures {
            // One of no token says nothing.
            if let Some(held) = parts[part(&id)].get_mut(&id) {
                held.signature = Some(signature);
            }
        }
        Self { epoch, parts: parts.into_iter().map(Arc::new).collect() }
    }

    /// With tokens put, deleted and signed; none where signatures are of another time, so that all of them change.
    pub(crate) fn changed(
        &self,
        put: Vec<Token>,
        deleted: &[String],
        assertions: Option<&Assertions>,
    ) -> Option<Self> {
        if assertions.is_some_and(|assertions| self.epoch != Some(assertions.epoch)) {
            return None;
        }
        let mut next = self.clone();
        for id in deleted.iter().filter_map(|id| TokenId::try_from(id.clone()).ok()) {
            next.part(&id).remove(&id);
        }
        for token in put {
            let part = next.part(&token.id);
            let signature = part.get(&token.id).and_then(|held| held.signature);
            part.insert(token.id.clone(), Held { token, signature });
        }
        for (id, signature) in assertions.into_iter().flat_map(|assertions| &assertions.signatures) {
            if let Some(held) = next.part(id).get_mut(id) {
                held.signature = Some(*signature);
            }
        }
        Some(next)
    }

    fn part(&mut self, id: &TokenId) -> &mut HashMap<TokenId, Held> {
        Arc::make_mut(&mut self.parts[part(id)])
    }

    pub(crate) fn token(&self, id: &TokenId) -> Option<&Token> {
        Some(&self.parts[part(id)].get(id)?.token)
    }

    /// Control's signature over who presents a token, and since when it is good.
    pub(crate) fn assertion(&self, id: &TokenId) -> Option<(&Epoch, &Signature)> {
        let held = self.parts[part(id)].get(id)?;
        Some((self.epoch.as_ref()?, held.signature.as_ref()?))
    }
}

/// FNV-1a: ids are drawn or hashes, and by control.
fn part(id: &TokenId) -> usize {
    let hash = id.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash % PARTS as u64) as usize
}
