//! The snapshot of a fleet, written as control would push it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use drover_api::kinds::{Binding, Cluster, Domain, Token, TokenKind, TokenScope, User};
use drover_api::roster::SignedRoster;
use drover_api::signed::Signer;
use drover_api::snapshot::signing::{Signing, Term};
use drover_api::snapshot::{Document, FORMAT, MAX_STALENESS_MAX, READER_MIN, Snapshot};
use drover_api::token;
use drover_policy::Policy;
use jiff::Timestamp;

use crate::pki::{self, Authority};

/// Nobody renews a local fleet's snapshot, nor its tokens.
const TOKEN_LIFE: Duration = MAX_STALENESS_MAX;

/// A snapshot in the making, and the file that it goes to.
pub struct Roster {
    pub document: Document,
    /// Which the tunnels' certificates come from, and that of the key that signs here.
    pub authority: Arc<Authority>,
    signing: Signing,
    seed: [u8; 32],
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
    pub fn new(path: &Path, clusters: &[(&str, &str)]) -> anyhow::Result<Self> {
        let cluster = |(name, id): &(&str, &str)| Cluster {
            name: (*name).to_owned(),
            id: (*id).to_owned(),
            projects: Default::default(),
            groups_listed: None,
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
            assertions: None,
            rosters: Vec::new(),
            enrolments: None,
        };
        let authority = Authority::new("drover local tunnels")?;
        let seed = rand::random();
        let signer = Signer::from_seed(&seed);
        let certificates = vec![authority.certify_signer(signer.public())?];
        let signing = Signing { signer, certificates };
        Ok(Self { document, authority: authority.into(), signing, seed, path: path.to_owned() })
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
            idle_s: None,
            session: None,
            made_by: None,
            jwt_ends_at: None,
            id: generated.id,
            hash: generated.hash,
            proof_key: generated.proof_key,
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
        self.sign()?;
        pki::write_secret(&self.path, &serde_json::to_string_pretty(&self.document)?)?;
        Ok(self.document.revision)
    }

    /// Signs with a new key from now on; the old one is good for what it signed.
    pub fn rotate(&mut self) -> anyhow::Result<()> {
        self.seed = rand::random();
        self.signing.signer = self.control();
        self.signing.certificates.push(self.authority.certify_signer(self.signing.signer.public())?);
        Ok(())
    }

    pub fn sign_roster(&self, roster: &drover_api::roster::Roster) -> SignedRoster {
        self.signing.roster(roster).expect("a roster is JSON")
    }

    /// The key that signs here, in place of control's.
    pub fn control(&self) -> Signer {
        Signer::from_seed(&self.seed)
    }

    /// As control would: a document that no gateway takes up stays unsigned.
    fn sign(&mut self) -> anyhow::Result<()> {
        let Ok(snapshot) = Snapshot::try_from(self.document.clone()) else { return Ok(()) };
        let lifetime = Duration::from_secs(self.document.max_staleness_s);
        let term = Term { issued_at: self.document.issued_at, lifetime };
        let epoch = self.signing.epoch(term);
        let user = |principal: &drover_policy::Principal| {
            snapshot.users.iter().find(|user| user.principal == *principal)
        };
        let listed = snapshot.groups_listed();
        self.document.assertions = Some(self.signing.assertions(user, &listed, &snapshot.tokens, epoch));
        let Ok(policy) = Policy::new(snapshot.rules.clone(), snapshot.stale_at) else { return Ok(()) };
        let holdings = policy.holdings(SystemTime::now());
        let disabled = snapshot.users.iter().filter(|user| user.disabled);
        let disabled = disabled.map(|user| user.principal.clone()).collect();
        let rosters = snapshot.rosters(&holdings, &disabled, term);
        self.document.rosters =
            rosters.map(|(_, roster)| self.signing.roster(&roster)).collect::<Result<_, _>>()?;
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}
