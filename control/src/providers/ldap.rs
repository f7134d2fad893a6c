//! Active Directory and LDAP servers.
//!
//! A login is four steps: who searches binds, finds exactly one entry, the user binds as that entry once, and the
//! groups are read as who searches. A bind that is refused is never tried again, not at another server either: it
//! would count as another wrong password.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_api::kinds::{self, Schema};
use ldap3::adapters::{Adapter, EntriesOnly, PagedResults};
use ldap3::{LdapConnAsync, LdapConnSettings, LdapResult, Scope, SearchEntry, ldap_escape};
use rustls::ClientConfig;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::{Directory, Found, LoginRefused, Person, Unavailable, trusting};

mod answers;
mod sid;

use answers::{ask_for_reasons, refused};

/// Of each step, and of connecting to each server.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Entries that a server sends at once.
const PAGE: i32 = 500;
/// Largest number of groups that are read of one person.
const GROUPS_MAX: usize = 5000;
/// Groups that are asked for by one search of those above them.
const BATCH: usize = 50;
/// How deep groups may be in groups, where the server does not follow them itself.
const DEPTH_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 256;
/// "Member, however deep" (LDAP_MATCHING_RULE_IN_CHAIN), known to Active Directory.
const IN_CHAIN: &str = "1.2.840.113556.1.4.1941";
/// Of `userAccountControl`.
const ACCOUNT_DISABLED: u32 = 2;
/// Of `accountExpires`, in 100 ns since 1601.
const NEVER: [i64; 2] = [0, i64::MAX];

pub(super) struct Ldap {
    config: kinds::Ldap,
    password: String,
    /// Absent: the system's authorities.
    tls: Option<Arc<ClientConfig>>,
}

/// A connection that is let in, and the task that drives it.
struct Connection {
    ldap: ldap3::Ldap,
    server: String,
    _driver: AbortOnDropHandle<()>,
}

impl Ldap {
    pub(super) fn new(config: kinds::Ldap, password: String) -> Result<Self, Unavailable> {
        let tls = config.ca.as_deref().map(trusting).transpose()?.map(Arc::new);
        Ok(Self { config, password, tls })
    }

    /// Of the first server that answers.
    async fn connect(&self) -> Result<Connection, Unavailable> {
        let mut problems = Vec::new();
        for server in &self.config.servers {
            match self.connect_to(server).await {
                Ok(connection) => return Ok(connection),
                Err(Unavailable(problem)) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            problems.push("no server is named".to_owned());
        }
        Err(Unavailable(problems.join("; ")))
    }

    async fn connect_to(&self, server: &str) -> Result<Connection, Unavailable> {
        let mut settings = LdapConnSettings::new().set_conn_timeout(TIMEOUT);
        settings = settings.set_starttls(server.starts_with("ldap://"));
        if let Some(tls) = &self.tls {
            settings = settings.set_config(tls.clone());
        }
        let connected = tokio::time::timeout(TIMEOUT, LdapConnAsync::with_settings(settings, server)).await;
        let connected =
            connected.map_err(|_| Unavailable(format!("{server}: no answer within {TIMEOUT:?}")))?;
        let (driver, ldap) = connected.map_err(|error| Unavailable(format!("{server}: {error}")))?;
        let name = server.to_owned();
        let driver = tokio::spawn(async move {
            if let Err(error) = driver.drive().await {
                warn!(server = name, %error, "a connection to a directory broke");
            }
        });
        Ok(Connection { ldap, server: server.to_owned(), _driver: AbortOnDropHandle::new(driver) })
    }

    /// A connection of who searches.
    async fn searcher(&self) -> Result<Connection, Unavailable> {
        let mut connection = self.connect().await?;
        let result = connection.bind(&self.config.bind_name, &self.password).await?;
        if result.rc != 0 {
            let LdapResult { rc, text, .. } = result;
            let (server, name) = (&connection.server, &self.config.bind_name);
            return Err(Unavailable(format!(
                "{server}: {name:?}, who searches, is not let in: {text} (LDAP result {rc})"
            )));
        }
        Ok(connection)
    }

    /// The one entry that a filter finds among users; none where there is none, or more than one.
    async fn one(&self, searcher: &mut Connection, filter: &str) -> Result<Option<Entry>, Unavailable> {
        let class = match self.config.schema {
            Schema::ActiveDirectory => "(objectCategory=person)(objectClass=user)",
            Schema::InetOrgPerson => "(objectClass=inetOrgPerson)",
        };
        let own = self.config.user_filter.as_deref().unwrap_or_default();
        let filter = format!("(&{class}{filter}{own})");
        let mut found = searcher.search(&self.config.user_base, &filter, self.attributes(), 2).await?;
        Ok(if found.len() == 1 { found.pop() } else { None })
    }

    fn attributes(&self) -> &'static [&'static str] {
        match self.config.schema {
            Schema::ActiveDirectory => &[
                "objectSid",
                "sAMAccountName",
                "displayName",
                "primaryGroupID",
                "userAccountControl",
                "accountExpires",
            ],
            Schema::InetOrgPerson => &["entryUUID", "uid", "cn", "displayName", "pwdAccountLockedTime"],
        }
    }

    /// What a name that somebody typed finds.
    fn by_name(&self, name: &str) -> String {
        let domain = self.config.domain.as_deref().unwrap_or_default();
        let name = match name.split_once('\\') {
            Some((before, rest)) if !domain.is_empty() && before.eq_ignore_ascii_case(domain) => rest,
            _ => name,
        };
        let escaped = ldap_escape(name);
        match (self.config.schema, name.split_once('@')) {
            (Schema::InetOrgPerson, _) => format!("(uid={escaped})"),
            (Schema::ActiveDirectory, None) => format!("(sAMAccountName={escaped})"),
            // Every account has the name at the domain, too, whatever its own principal name is.
            (Schema::ActiveDirectory, Some((account, at))) if at.eq_ignore_ascii_case(&self.dns_domain()) => {
                format!("(|(userPrincipalName={escaped})(sAMAccountName={}))", ldap_escape(account))
            }
            (Schema::ActiveDirectory, Some(_)) => format!("(userPrincipalName={escaped})"),
        }
    }

    /// As in `DC=corp,DC=example`.
    fn dns_domain(&self) -> String {
        let parts = self.config.user_base.split(',').filter_map(|part| part.split_once('='));
        let parts = parts.filter(|(name, _)| name.trim().eq_ignore_ascii_case("dc"));
        parts.map(|(_, part)| part.trim()).collect::<Vec<_>>().join(".")
    }

    async fn person(&self, searcher: &mut Connection, entry: &Entry) -> Result<Person, Unavailable> {
        let (id, login, groups) = match self.config.schema {
            Schema::ActiveDirectory => {
                let id = entry.sid().ok_or_else(|| entry.lacks("objectSid"))?;
                let mut groups = self.groups_in_chain(searcher, &entry.dn).await?;
                let primary = entry.text("primaryGroupID");
                if let (Some(primary), Some((domain, _))) = (primary, id.rsplit_once('-')) {
                    groups.insert(format!("{domain}-{primary}"));
                }
                (id, entry.text("sAMAccountName"), groups)
            }
            Schema::InetOrgPerson => {
                let id = entry.text("entryUUID").ok_or_else(|| entry.lacks("entryUUID"))?;
                (id, entry.text("uid"), self.groups_upwards(searcher, &entry.dn).await?)
            }
        };
        let login = login.ok_or_else(|| entry.lacks("a name"))?;
        let display_name = entry.text("displayName").or_else(|| entry.text("cn"));
        Ok(Person { id, login, display_name, groups: groups.into_iter().collect() })
    }

    fn group_base(&self) -> &str {
        self.config.group_base.as_deref().unwrap_or(&self.config.user_base)
    }

    /// All that a filter finds, or none of it: a group is never left out in silence.
    async fn groups(
        &self,
        searcher: &mut Connection,
        filter: &str,
        id: &'static str,
    ) -> Result<Vec<Entry>, Unavailable> {
        let found = searcher.search(self.group_base(), filter, &[id], GROUPS_MAX + 1).await?;
        if found.len() > GROUPS_MAX {
            return Err(Unavailable(format!("more than {GROUPS_MAX} groups at once: too many to read")));
        }
        Ok(found)
    }

    async fn groups_in_chain(
        &self,
        searcher: &mut Connection,
        dn: &str,
    ) -> Result<BTreeSet<String>, Unavailable> {
        let filter = format!("(&(objectClass=group)(member:{IN_CHAIN}:={}))", ldap_escape(dn));
        let found = self.groups(searcher, &filter, "objectSid").await?;
        Ok(found.iter().filter_map(Entry::sid).collect())
    }

    /// Group by group to what they are in, and each once, so that a circle ends.
    async fn groups_upwards(
        &self,
        searcher: &mut Connection,
        dn: &str,
    ) -> Result<BTreeSet<String>, Unavailable> {
        let (mut ids, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut level = vec![dn.to_owned()];
        for _ in 0..DEPTH_MAX {
            let mut above = Vec::new();
            for batch in level.chunks(BATCH) {
                let member = |dn: &String| {
                    let dn = ldap_escape(dn.as_str());
                    format!("(member={dn})(uniqueMember={dn})")
                };
                let members: String = batch.iter().map(member).collect();
                let filter =
                    format!("(&(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames))(|{members}))");
                for group in self.groups(searcher, &filter, "entryUUID").await? {
                    if seen.insert(group.dn.clone()) {
                        ids.insert(group.text("entryUUID").ok_or_else(|| group.lacks("entryUUID"))?);
                        above.push(group.dn);
                    }
                }
            }
            if ids.len() > GROUPS_MAX {
                return Err(Unavailable(format!("{dn:?} is in more than {GROUPS_MAX} groups")));
            }
            if above.is_empty() {
                return Ok(ids);
            }
            level = above;
        }
        Err(Unavailable(format!("groups are in groups more than {DEPTH_MAX} deep above {dn:?}")))
    }
}

#[async_trait]
impl Directory for Ldap {
    async fn log_in(&self, name: &str, password: &str) -> Result<Person, LoginRefused> {
        // To a server, a name without a password is nobody in particular, and let in.
        if password.is_empty() || name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
            return Err(LoginRefused::Wrong);
        }
        let mut searcher = self.searcher().await?;
        let found = self.one(&mut searcher, &self.by_name(name)).await?;
        let entry = found.ok_or(LoginRefused::Wrong)?;
        // At the same server: another may not know yet what this one knows.
        let mut user = self.connect_to(&searcher.server).await?;
        let result = user.bind(&entry.dn, password).await?;
        refused(self.config.schema, &result).map_or(Ok(()), Err)?;
        Ok(self.person(&mut searcher, &entry).await?)
    }

    async fn find(&self, id: &str, _grant: Option<&str>) -> Result<Found, Unavailable> {
        let mut searcher = self.searcher().await?;
        let attribute = match self.config.schema {
            Schema::ActiveDirectory => "objectSid",
            Schema::InetOrgPerson => "entryUUID",
        };
        let filter = format!("({attribute}={})", ldap_escape(id));
        match self.one(&mut searcher, &filter).await? {
            Some(entry) if entry.may_log_in(jiff::Timestamp::now()) => {
                Ok(Some(self.person(&mut searcher, &entry).await?).into())
            }
            _ => Ok(Found::Gone),
        }
    }

    async fn test(&self, _back: &str) -> Result<(), Unavailable> {
        for server in &self.config.servers {
            self.connect_to(server).await?;
        }
        let mut searcher = self.searcher().await?;
        for base in [&self.config.user_base, self.group_base()] {
            if searcher.search_within(base, Scope::Base, "(objectClass=*)", &["1.1"], 1).await?.is_empty() {
                return Err(Unavailable(format!(
                    "{}: {base:?} is not there, or may not be read",
                    searcher.server
                )));
            }
        }
        let any = match self.config.schema {
            Schema::ActiveDirectory => "(sAMAccountName=*)",
            Schema::InetOrgPerson => "(uid=*)",
        };
        let own = self.config.user_filter.as_deref().unwrap_or_default();
        let users = format!("(&{any}{own})");
        if searcher.search(&self.config.user_base, &users, &["1.1"], 1).await?.is_empty() {
            let base = &self.config.user_base;
            return Err(Unavailable(format!("{}: no user below {base:?} matches {users}", searcher.server)));
        }
        Ok(())
    }
}

impl Connection {
    async fn bind(&mut self, name: &str, password: &str) -> Result<LdapResult, Unavailable> {
        self.ldap.with_timeout(TIMEOUT).with_controls(vec![ask_for_reasons()]);
        let bound = self.ldap.simple_bind(name, password).await;
        bound.map_err(|error| Unavailable(format!("{}: {error}", self.server)))
    }

    async fn search(
        &mut self,
        base: &str,
        filter: &str,
        attributes: &[&'static str],
        max: usize,
    ) -> Result<Vec<Entry>, Unavailable> {
        self.search_within(base, Scope::Subtree, filter, attributes, max).await
    }

    /// Entries only: referrals lead to servers that nobody named.
    async fn search_within(
        &mut self,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: &[&'static str],
        max: usize,
    ) -> Result<Vec<Entry>, Unavailable> {
        let failed = |error| Unavailable(format!("{}: search below {base:?}: {error}", self.server));
        let adapters: Vec<Box<dyn Adapter<_, _>>> =
            vec![Box::new(EntriesOnly::new()), Box::new(PagedResults::new(PAGE))];
        self.ldap.with_timeout(TIMEOUT);
        let mut search = self
            .ldap
            .streaming_search_with(adapters, base, scope, filter, attributes.to_vec())
            .await
            .map_err(failed)?;
        let mut entries = Vec::new();
        while let Some(entry) = search.next().await.map_err(failed)? {
            entries.push(Entry::from(SearchEntry::construct(entry)));
            if entries.len() >= max {
                // What is not read ends with the connection.
                return Ok(entries);
            }
        }
        let result = search.finish().await;
        // noSuchObject: there is nothing below what is not there.
        if ![0, 32].contains(&result.rc) {
            let LdapResult { rc, text, .. } = result;
            return Err(Unavailable(format!(
                "{}: search below {base:?}: {text} (LDAP result {rc})",
                self.server
            )));
        }
        Ok(entries)
    }
}

struct Entry {
    dn: String,
    texts: HashMap<String, Vec<String>>,
    bytes: HashMap<String, Vec<Vec<u8>>>,
}

impl From<SearchEntry> for Entry {
    fn from(SearchEntry { dn, attrs, bin_attrs }: SearchEntry) -> Self {
        Self { dn, texts: attrs, bytes: bin_attrs }
    }
}

impl Entry {
    fn text(&self, attribute: &str) -> Option<String> {
        self.texts.get(attribute)?.first().cloned()
    }

    fn sid(&self) -> Option<String> {
        // Bytes that happen to be text come as text.
        let text = || self.texts.get("objectSid").and_then(|values| Some(values.first()?.as_bytes()));
        let bytes = self.bytes.get("objectSid").and_then(|values| values.first()).map(Vec::as_slice);
        sid::text(bytes.or_else(text)?)
    }

    fn lacks(&self, attribute: &str) -> Unavailable {
        Unavailable(format!("{:?} has no {attribute} that may be read", self.dn))
    }

    /// Whether the account is neither disabled nor expired. One that is locked may be so by others' wrong passwords.
    fn may_log_in(&self, now: jiff::Timestamp) -> bool {
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

impl From<Unavailable> for LoginRefused {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}
