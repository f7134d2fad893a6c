//! One connection to a server, and what it says.

use std::collections::HashMap;

use ldap3::adapters::{Adapter, PagedResults};
use ldap3::{LdapConnAsync, LdapResult, Scope, SearchEntry, parse_refs};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::answers::ask_for_reasons;
use super::{TIMEOUT, Unavailable, sid};

/// Entries that a server sends at once.
const PAGE: i32 = 500;
/// LDAP results (RFC 4511, A.1).
const SUCCESS: u32 = 0;
const REFERRAL: u32 = 10;
const NO_SUCH_OBJECT: u32 = 32;
/// Of `userAccountControl`.
const ACCOUNT_DISABLED: u32 = 2;
/// Of `accountExpires`, in 100 ns since 1601.
const NEVER: [i64; 2] = [0, i64::MAX];

/// A connection, and the task that drives it.
pub(super) struct Connection {
    ldap: ldap3::Ldap,
    pub server: String,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    pub(super) fn new(server: &str, ldap: ldap3::Ldap, driver: LdapConnAsync) -> Self {
        let name = server.to_owned();
        let driver = tokio::spawn(async move {
            if let Err(error) = driver.drive().await {
                warn!(server = name, %error, "a connection to a directory broke");
            }
        });
        Self { ldap, server: server.to_owned(), _driver: AbortOnDropHandle::new(driver) }
    }

    pub(super) async fn bind(&mut self, name: &str, password: &str) -> Result<LdapResult, Unavailable> {
        self.ldap.with_timeout(TIMEOUT).with_controls(vec![ask_for_reasons()]);
        let bound = self.ldap.simple_bind(name, password).await;
        bound.map_err(|error| Unavailable(format!("{}: {error}", self.server)))
    }

    /// At most so many entries; references to other servers as they come.
    pub(super) async fn search(
        &mut self,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: &[&'static str],
        max: usize,
    ) -> Result<Answer, Unavailable> {
        let failed = |error| Unavailable(format!("{}: search below {base:?}: {error}", self.server));
        let adapters: Vec<Box<dyn Adapter<_, _>>> = vec![Box::new(PagedResults::new(PAGE))];
        self.ldap.with_timeout(TIMEOUT);
        let mut search = self
            .ldap
            .streaming_search_with(adapters, base, scope, filter, attributes.to_vec())
            .await
            .map_err(failed)?;
        let mut answer = Answer::default();
        while let Some(entry) = search.next().await.map_err(failed)? {
            if entry.is_intermediate() {
                continue;
            }
            if entry.is_ref() {
                answer.references.push(parse_refs(entry.0));
                continue;
            }
            answer.entries.push(Entry::new(&self.server, SearchEntry::construct(entry)));
            if answer.entries.len() >= max {
                // What is not read ends with the connection.
                return Ok(answer);
            }
        }
        let LdapResult { rc, text, refs, .. } = search.finish().await;
        match rc {
            // noSuchObject: there is nothing below what is not there.
            SUCCESS | NO_SUCH_OBJECT => Ok(answer),
            REFERRAL => Ok(Answer { elsewhere: Some(refs), ..answer }),
            _ => {
                Err(Unavailable(format!("{}: search below {base:?}: {text} (LDAP result {rc})", self.server)))
            }
        }
    }
}

/// What one server says to a search.
#[derive(Default)]
pub(super) struct Answer {
    pub entries: Vec<Entry>,
    /// Where more is: of each part, URLs for the same.
    pub references: Vec<Vec<String>>,
    /// Where all of it is.
    pub elsewhere: Option<Vec<String>>,
}

/// An entry, and the server that has it.
pub(super) struct Entry {
    pub server: String,
    pub dn: String,
    texts: HashMap<String, Vec<String>>,
    bytes: HashMap<String, Vec<Vec<u8>>>,
}

impl Entry {
    fn new(server: &str, SearchEntry { dn, attrs, bin_attrs }: SearchEntry) -> Self {
        Self { server: server.to_owned(), dn, texts: attrs, bytes: bin_attrs }
    }

    pub(super) fn text(&self, attribute: &str) -> Option<String> {
        self.texts.get(attribute)?.first().cloned()
    }

    pub(super) fn sid(&self) -> Option<String> {
        // Bytes that happen to be text come as text.
        let text = || self.texts.get("objectSid").and_then(|values| Some(values.first()?.as_bytes()));
        let bytes = self.bytes.get("objectSid").and_then(|values| values.first()).map(Vec::as_slice);
        sid::text(bytes.or_else(text)?)
    }

    pub(super) fn lacks(&self, attribute: &str) -> Unavailable {
        Unavailable(format!("{:?} has no {attribute} that may be read", self.dn))
    }

    /// Whether the account is neither disabled nor expired. One that is locked may be so by others' wrong passwords.
    pub(super) fn may_log_in(&self, now: jiff::Timestamp) -> bool {
        let number = |attribute: &str| self.text(attribute).and_then(|text| text.parse::<i64>().ok());
        let control = number("userAccountControl").unwrap_or_default();
        let expired = number("accountExpires").is_some_and(|expires| {
            const UNIX_EPOCH_S: i64 = 11_644_473_600;
            !NEVER.contains(&expires) && expires / 10_000_000 - UNIX_EPOCH_S <= now.as_second()
        });
        // Locked by who manages it, rather than by wrong passwords (draft-behera-ldap-password-policy, 5.3.3).
        let locked_for_good = self.text("pwdAccountLockedTime").is_some_and(|time| time == "000001010000Z");
        control & i64::from(ACCOUNT_DISABLED) == 0 && !expired && !locked_for_good
    }
}
