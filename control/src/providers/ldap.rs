//! Active Directory and LDAP servers.
//!
//! A login is four steps: who searches binds, finds exactly one entry, the user binds as that entry once, and the
//! groups are read as who searches. A bind that is refused is never tried again, not at another server either: it
//! would count as another wrong password.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_api::kinds::{self, Schema};
use ldap3::{LdapConnAsync, LdapConnSettings, LdapResult, Scope, ldap_escape};
use rustls::ClientConfig;

use super::{Directory, Found, LoginRefused, Matches, NotSearched, Person, Unavailable, trusting};

mod answers;
mod connection;
mod matches;
mod searcher;
mod sid;

use answers::refused;
use connection::{Connection, Entry};
use searcher::Searcher;

/// Of each step, and of connecting to each server.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest number of groups that are read of one person.
const GROUPS_MAX: usize = 5000;
/// Groups that are asked for by one search of those above them.
const BATCH: usize = 50;
/// How deep groups may be in groups, where the server does not follow them itself.
const DEPTH_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 256;
/// "Member, however deep" (LDAP_MATCHING_RULE_IN_CHAIN), known to Active Directory.
const IN_CHAIN: &str = "1.2.840.113556.1.4.1941";

/// What they are called, by their ids.
type Groups = BTreeMap<String, Option<String>>;

pub(super) struct Ldap {
    config: kinds::Ldap,
    password: String,
    /// Absent: the system's authorities.
    tls: Option<Arc<ClientConfig>>,
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
        Ok(Connection::new(server, ldap, driver))
    }

    /// A connection, of who searches from now on.
    async fn let_in(&self, mut connection: Connection) -> Result<Connection, Unavailable> {
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
    async fn one(&self, searcher: &mut Searcher<'_>, filter: &str) -> Result<Option<Entry>, Unavailable> {
        let filter = self.users(filter);
        let mut found = searcher.search(&self.config.user_base, &filter, self.attributes(), 2).await?;
        Ok(if found.len() == 1 { found.pop() } else { None })
    }

    /// The filter of users whom another one finds.
    fn users(&self, filter: &str) -> String {
        let class = match self.config.schema {
            Schema::ActiveDirectory => "(objectCategory=person)(objectClass=user)",
            Schema::InetOrgPerson => "(objectClass=inetOrgPerson)",
        };
        let own = self.config.user_filter.as_deref().unwrap_or_default();
        format!("(&{class}{filter}{own})")
    }

    /// What groups are.
    fn group_class(&self) -> &'static str {
        match self.config.schema {
            Schema::ActiveDirectory => "(objectClass=group)",
            Schema::InetOrgPerson => "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames))",
        }
    }

    /// What users and groups are known by for good.
    fn id(&self) -> &'static str {
        match self.config.schema {
            Schema::ActiveDirectory => "objectSid",
            Schema::InetOrgPerson => "entryUUID",
        }
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

    async fn person(&self, searcher: &mut Searcher<'_>, entry: &Entry) -> Result<Person, Unavailable> {
        let (id, login, groups) = match self.config.schema {
            Schema::ActiveDirectory => {
                let id = entry.sid().ok_or_else(|| entry.lacks("objectSid"))?;
                let mut groups = self.groups_in_chain(searcher, &entry.dn).await?;
                let primary = entry.text("primaryGroupID");
                if let (Some(primary), Some((domain, _))) = (primary, id.rsplit_once('-')) {
                    groups.entry(format!("{domain}-{primary}")).or_default();
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
        Ok(Person { id, login, display_name, groups })
    }

    fn group_base(&self) -> &str {
        self.config.group_base.as_deref().unwrap_or(&self.config.user_base)
    }

    /// All that a filter finds, or none of it: a group is never left out in silence.
    async fn groups(&self, searcher: &mut Searcher<'_>, filter: &str) -> Result<Vec<Entry>, Unavailable> {
        let found = searcher.search(self.group_base(), filter, &[self.id(), "cn"], GROUPS_MAX + 1).await?;
        if found.len() > GROUPS_MAX {
            return Err(Unavailable(format!("more than {GROUPS_MAX} groups at once: too many to read")));
        }
        Ok(found)
    }

    async fn groups_in_chain(&self, searcher: &mut Searcher<'_>, dn: &str) -> Result<Groups, Unavailable> {
        let filter = format!("(&{}(member:{IN_CHAIN}:={}))", self.group_class(), ldap_escape(dn));
        let found = self.groups(searcher, &filter).await?;
        Ok(found.iter().filter_map(|group| Some((group.sid()?, group.text("cn")))).collect())
    }

    /// Group by group to what they are in, and each once, so that a circle ends.
    async fn groups_upwards(&self, searcher: &mut Searcher<'_>, dn: &str) -> Result<Groups, Unavailable> {
        let (mut groups, mut seen) = (Groups::new(), BTreeSet::new());
        let mut level = vec![dn.to_owned()];
        for _ in 0..DEPTH_MAX {
            let mut above = Vec::new();
            for batch in level.chunks(BATCH) {
                let member = |dn: &String| {
                    let dn = ldap_escape(dn.as_str());
                    format!("(member={dn})(uniqueMember={dn})")
                };
                let members: String = batch.iter().map(member).collect();
                let filter = format!("(&{}(|{members}))", self.group_class());
                for group in self.groups(searcher, &filter).await? {
                    if seen.insert(group.dn.clone()) {
                        let id = group.text("entryUUID").ok_or_else(|| group.lacks("entryUUID"))?;
                        groups.insert(id, group.text("cn"));
                        above.push(group.dn);
                    }
                }
            }
            if groups.len() > GROUPS_MAX {
                return Err(Unavailable(format!("{dn:?} is in more than {GROUPS_MAX} groups")));
            }
            if above.is_empty() {
                return Ok(groups);
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
        let mut searcher = Searcher::open(self).await?;
        let found = self.one(&mut searcher, &self.by_name(name)).await?;
        let entry = found.ok_or(LoginRefused::Wrong)?;
        // At the same server: another may not know yet what this one knows.
        let mut user = self.connect_to(&entry.server).await?;
        let result = user.bind(&entry.dn, password).await?;
        refused(self.config.schema, &result).map_or(Ok(()), Err)?;
        Ok(self.person(&mut searcher, &entry).await?)
    }

    async fn find(&self, id: &str, _grant: Option<&str>) -> Result<Found, Unavailable> {
        let mut searcher = Searcher::open(self).await?;
        let filter = format!("({}={})", self.id(), ldap_escape(id));
        match self.one(&mut searcher, &filter).await? {
            Some(entry) if entry.may_log_in(jiff::Timestamp::now()) => {
                Ok(Some(self.person(&mut searcher, &entry).await?).into())
            }
            _ => Ok(Found::Gone),
        }
    }

    async fn search(&self, text: &str, max: usize) -> Result<Matches, NotSearched> {
        Ok(self.matches(text, max).await?)
    }

    async fn test(&self, _back: &str) -> Result<(), Unavailable> {
        for server in &self.config.servers {
            self.connect_to(server).await?;
        }
        let mut searcher = Searcher::open(self).await?;
        searcher.reach_all().await?;
        for base in [&self.config.user_base, self.group_base()] {
            if searcher.search_within(base, Scope::Base, "(objectClass=*)", &["1.1"], 1).await?.is_empty() {
                return Err(Unavailable(format!(
                    "{}: {base:?} is not there, or may not be read",
                    searcher.server()
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
            return Err(Unavailable(format!(
                "{}: no user below {base:?} matches {users}",
                searcher.server()
            )));
        }
        Ok(())
    }
}

impl From<Unavailable> for LoginRefused {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}
