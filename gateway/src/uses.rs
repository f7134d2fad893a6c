//! Which tokens were used since control last heard of it: noted in passing, told in batches.

use dashmap::DashSet;
use drover_api::token::TokenId;

/// Of one batch. Tokens beyond it are noted with their next use after it was told.
const TOKENS_MAX: usize = 100_000;

#[derive(Default)]
pub(crate) struct Uses(DashSet<TokenId>);

impl Uses {
    /// For most requests this is one look at what is there.
    pub(crate) fn note(&self, token: &TokenId) {
        if !self.0.contains(token) && self.0.len() < TOKENS_MAX {
            self.0.insert(token.clone());
        }
    }

    /// What was noted, at most so many; the rest stays for the next time.
    pub(crate) fn take(&self, most: usize) -> Vec<TokenId> {
        let taken: Vec<_> = self.0.iter().take(most).map(|token| token.clone()).collect();
        for token in &taken {
            self.0.remove(token);
        }
        taken
    }

    /// What could not be told.
    pub(crate) fn put_back(&self, tokens: Vec<TokenId>) {
        for token in &tokens {
            self.note(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_api::token;

    use super::*;

    #[test]
    fn each_token_is_told_once_until_its_next_use() {
        let uses = Uses::default();
        let (one, two) = (token::generate().id, token::generate().id);
        uses.note(&one);
        uses.note(&one);
        uses.note(&two);
        let first = uses.take(1);
        let second = uses.take(10);
        assert_eq!((first.len(), second.len(), uses.take(10).len()), (1, 1, 0));
        assert_ne!(first, second);
        uses.put_back(first.clone());
        uses.note(&first[0]);
        assert_eq!(uses.take(10), first);
    }
}
