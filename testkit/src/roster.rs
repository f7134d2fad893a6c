//! The snapshot of a fleet, written as control would push it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_api::kinds::{Binding, Cluster, Domain, Token, TokenKind, TokenScope, User};
use drover_api::snapshot::{Document, FORMAT, MAX_STALENESS_MAX, READER_MIN};
use drover_api::token;
use jiff::Timestamp;

use crate::pki;

/// Nobody renews a local fleet's snapshot, nor its tokens.
const TOKEN_LIFE: Duration = MAX_STALENESS_MAX;

/// A snapshot in the making, and the file that it goes to.
#[derive(Clone, Debug)]
pub struct Roster {
    pub document: Document,
    path: PathBuf,
}

/// A user with the token that they were shown once.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub principal: String,
    pub token: String,
}

impl Roster {
    /// Begins a snapshot of clusters, given as name and id.
    pub fn new(path: &Path, clusters: &[(&str, &str)]) -> Self {
        let cluster = |(name, id): &(&str, &str)| Cluster {
            name: (*name).to_owned(),
            id: (*id).to_owned(),
            projects: Default::default(),
        };
        let document = Document {
            format: FORMAT,
            reader_min: READER_MIN,
            revision: 0,
            issued_at: Timestamp::now(),
            max_staleness_s: MAX_STALENESS_MAX.as_secs(),
            clusters: clusters.iter().map(cluster).collect(),
            users: Vec::new(),
            tokens: Vec::new(),
            roles: Vec::new(),
            bindings: Vec::new(),
        };
        Self { document, path: path.to_owned() }
    }

    /// Adds a user with a token that is good everywhere.
    pub fn user(&mut self, name: &str, groups: &[&str]) -> anyhow::Result<Member> {
        let principal = format!("local:user/{name}");
        self.document.users.push(User {
            principal: principal.clone(),
            name: name.to_owned(),
            display_name: None,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            disabled: false,
        });
        let token = self.token(&principal, TokenScope::All, TOKEN_LIFE)?;
        Ok(Member { name: name.to_owned(), principal, token })
    }

    /// Adds a token, and returns what its owner is shown.
    pub fn token(&mut self, principal: &str, scope: TokenScope, life: Duration) -> anyhow::Result<String> {
        let generated = token::generate();
        self.document.tokens.push(Token {
            id: generated.id,
            hash: generated.hash,
            user: principal.to_owned(),
            kind: TokenKind::Kubeconfig,
            scope,
            expires_at: Timestamp::now().checked_add(life)?,
        });
        Ok(generated.secret.expose().to_owned())
    }

    pub fn bind(&mut self, principal: &str, role: &str, domain: Domain) {
        self.document.bindings.push(Binding {
            name: format!("{role}-{}", self.document.bindings.len()),
            principal: principal.to_owned(),
            role: role.to_owned(),
            domain,
            expires_at: None,
        });
    }

    /// Writes the next revision, whole or not at all.
    pub fn publish(&mut self) -> anyhow::Result<u64> {
        self.document.revision += 1;
        self.document.issued_at = Timestamp::now();
        pki::write_secret(&self.path, &serde_json::to_string_pretty(&self.document)?)?;
        Ok(self.document.revision)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}
