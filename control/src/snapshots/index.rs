//! What there is of each principal, so that nobody who asks for one looks through all.

use std::collections::HashMap;

use drover_api::kinds::{Binding, Token, User};
use drover_api::token::TokenId;

/// Kept with each change of a state.
#[derive(Clone, Default)]
pub(super) struct Index {
    /// Names of users.
    names: HashMap<String, Vec<String>>,
    /// Of each user.
    tokens: HashMap<String, Vec<TokenId>>,
    /// Tokens that were made with each token.
    made: HashMap<TokenId, Vec<TokenId>>,
    bindings: HashMap<String, usize>,
}

impl Index {
    /// Several only where something is wrong.
    pub(super) fn names(&self, principal: &str) -> &[String] {
        self.names.get(principal).map_or(&[], Vec::as_slice)
    }

    pub(super) fn tokens(&self, principal: &str) -> &[TokenId] {
        self.tokens.get(principal).map_or(&[], Vec::as_slice)
    }

    pub(super) fn bindings(&self, principal: &str) -> usize {
        self.bindings.get(principal).copied().unwrap_or_default()
    }

    pub(super) fn user(&mut self, before: Option<&User>, after: Option<&User>) {
        if let Some(before) = before
            && let Some(names) = self.names.get_mut(&before.principal)
        {
            names.retain(|name| *name != before.name);
            if names.is_empty() {
                self.names.remove(&before.principal);
            }
        }
        if let Some(after) = after {
            self.names.entry(after.principal.clone()).or_default().push(after.name.clone());
        }
    }

    pub(super) fn token(&mut self, before: Option<&Token>, after: Option<&Token>) {
        if let Some(Token { id, made_by: Some(maker), .. }) = before
            && let Some(made) = self.made.get_mut(maker)
        {
            made.retain(|other| other != id);
            if made.is_empty() {
                self.made.remove(maker);
            }
        }
        if let Some(Token { id, made_by: Some(maker), .. }) = after {
            self.made.entry(maker.clone()).or_default().push(id.clone());
        }
        if before.map(|token| &token.user) == after.map(|token| &token.user) {
            return;
        }
        if let Some(after) = after {
            self.tokens.entry(after.user.clone()).or_default().push(after.id.clone());
        }
        if let Some(before) = before
            && let Some(of) = self.tokens.get_mut(&before.user)
        {
            of.retain(|id| *id != before.id);
            if of.is_empty() {
                self.tokens.remove(&before.user);
            }
        }
    }

    pub(super) fn made_with(&self, token: &TokenId) -> &[TokenId] {
        self.made.get(token).map_or(&[], Vec::as_slice)
    }

    pub(super) fn binding(&mut self, before: Option<&Binding>, after: Option<&Binding>) {
        let [before, after] = [before, after].map(|binding| binding.map(|binding| &binding.principal));
        count(&mut self.bindings, before, after);
    }
}

fn count(counts: &mut HashMap<String, usize>, before: Option<&String>, after: Option<&String>) {
    if before == after {
        return;
    }
    if let Some(after) = after {
        *counts.entry(after.clone()).or_default() += 1;
    }
    if let Some(before) = before
        && let Some(count) = counts.get_mut(before)
    {
        *count -= 1;
        if *count == 0 {
            counts.remove(before);
        }
    }
}
