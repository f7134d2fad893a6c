//! What a text finds among users and groups: for whoever gives roles, and does not know ids.

use ldap3::ldap_escape;

use super::connection::Entry;
use super::searcher::Searcher;
use super::{Ldap, Schema, Unavailable};
use crate::providers::{Match, Matches};

impl Ldap {
    pub(super) async fn matches(&self, text: &str, max: usize) -> Result<Matches, Unavailable> {
        let mut searcher = Searcher::open(self).await?;
        let contains = |attributes: &[&str]| {
            let text = ldap_escape(text);
            attributes.iter().map(|attribute| format!("({attribute}=*{text}*)")).collect::<String>()
        };
        // Of users, first what they log in as.
        let (user_names, group_names): (&[_], &[_]) = match self.config.schema {
            Schema::ActiveDirectory => {
                (&["sAMAccountName", "userPrincipalName", "displayName"], &["sAMAccountName", "cn"])
            }
            Schema::InetOrgPerson => (&["uid", "cn", "displayName"], &["cn"]),
        };
        let users = self.users(&format!("(|{})", contains(user_names)));
        let users = searcher.search(&self.config.user_base, &users, self.attributes(), max).await?;
        let groups = format!("(&{}(|{}))", self.group_class(), contains(group_names));
        let groups = searcher.search(self.group_base(), &groups, &[self.id(), "cn"], max).await?;
        Ok(Matches {
            users: users.iter().filter_map(|entry| matched(entry, user_names[0])).collect(),
            groups: groups.iter().filter_map(|entry| matched(entry, "cn")).collect(),
        })
    }
}

/// None where its id may not be read: nobody could be named by it.
fn matched(entry: &Entry, name: &str) -> Option<Match> {
    let id = entry.sid().or_else(|| entry.text("entryUUID"))?;
    let name = entry.text(name)?;
    Some(Match { id, name, display_name: entry.text("displayName"), dn: Some(entry.dn.clone()) })
}
