//! Searches: at the directory's own server, and where that refers to (RFC 4511, 4.5.3), at the ones that the provider
//! names. Others are left alone: whoever is asked gets the name and the password of who searches.

use std::collections::{HashMap, HashSet, VecDeque};

use ldap3::{Scope, get_url_params};
use url::Url;

use super::connection::{Connection, Entry};
use super::{Ldap, Unavailable};

/// References that one search follows.
const FOLLOWED_MAX: usize = 32;

/// Connections of who searches, as far as they were needed.
pub(super) struct Searcher<'a> {
    ldap: &'a Ldap,
    own: Connection,
    others: HashMap<String, Connection>,
}

/// What is to be searched.
struct Question {
    /// Absent: the directory's own.
    server: Option<String>,
    base: String,
    scope: Scope,
}

impl<'a> Searcher<'a> {
    pub(super) async fn open(ldap: &'a Ldap) -> Result<Self, Unavailable> {
        let own = ldap.connect().await?;
        let own = ldap.let_in(own).await?;
        Ok(Self { ldap, own, others: HashMap::new() })
    }

    /// The directory's own server.
    pub(super) fn server(&self) -> &str {
        &self.own.server
    }

    pub(super) async fn search(
        &mut self,
        base: &str,
        filter: &str,
        attributes: &[&'static str],
        max: usize,
    ) -> Result<Vec<Entry>, Unavailable> {
        self.search_within(base, Scope::Subtree, filter, attributes, max).await
    }

    pub(super) async fn search_within(
        &mut self,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: &[&'static str],
        max: usize,
    ) -> Result<Vec<Entry>, Unavailable> {
        let first = Question { server: None, base: base.to_owned(), scope };
        let (mut questions, mut followed, mut entries) =
            (VecDeque::from([first]), HashSet::new(), Vec::new());
        while let Some(Question { server, base, scope }) = questions.pop_front() {
            let connection = self.connection(server.as_deref()).await?;
            let found = connection.search(&base, scope, filter, attributes, max - entries.len()).await?;
            entries.extend(found.entries);
            if entries.len() >= max {
                break;
            }
            let elsewhere = found.elsewhere.as_ref().map(|urls| (urls, Some(scope)));
            let references = found.references.iter().map(|urls| (urls, None)).chain(elsewhere);
            for (urls, scope) in references {
                let next = self.named(urls, &base, scope).await?;
                let Some(next) = next else {
                    // What is only beside is nobody's; what is the whole answer cannot be done without.
                    match scope {
                        None => continue,
                        Some(_) => return Err(self.unnamed(&base, urls)),
                    }
                };
                if followed.insert((next.server.clone(), next.base.to_lowercase())) {
                    questions.push_back(next);
                }
            }
            if followed.len() > FOLLOWED_MAX {
                return Err(Unavailable(format!(
                    "{base:?}: more than {FOLLOWED_MAX} references to other servers"
                )));
            }
        }
        Ok(entries)
    }

    /// Connects to every server that references are followed to.
    pub(super) async fn reach_all(&mut self) -> Result<(), Unavailable> {
        for server in &self.ldap.config.referrals {
            self.connection(Some(server)).await?;
        }
        Ok(())
    }

    async fn connection(&mut self, server: Option<&str>) -> Result<&mut Connection, Unavailable> {
        let Some(server) = server else { return Ok(&mut self.own) };
        if !self.others.contains_key(server) {
            let other = self.ldap.let_in(self.ldap.connect_to(server).await?).await?;
            self.others.insert(server.to_owned(), other);
        }
        Ok(self.others.get_mut(server).unwrap_or(&mut self.own))
    }

    /// The first of some URLs for the same that leads to a server which is named, and answers.
    async fn named(
        &mut self,
        urls: &[String],
        base: &str,
        scope: Option<Scope>,
    ) -> Result<Option<Question>, Unavailable> {
        let mut problem = None;
        for url in urls {
            let Some((server, at, within)) = followable(url, &self.ldap.config.referrals) else { continue };
            match self.connection(Some(server)).await {
                Ok(_) => {
                    let base = if at.is_empty() { base.to_owned() } else { at };
                    let server = Some(server.to_owned());
                    return Ok(Some(Question { server, base, scope: scope.unwrap_or(within) }));
                }
                Err(unavailable) => problem = Some(unavailable),
            }
        }
        problem.map_or(Ok(None), Err)
    }

    fn unnamed(&self, base: &str, urls: &[String]) -> Unavailable {
        let server = self.server();
        Unavailable(format!(
            "{server}: {base:?} is at {}, which is none of the provider's servers for referrals",
            urls.join(", ")
        ))
    }
}

/// The server among those named that a reference leads to, with the base and the scope there. A port that nobody wrote is
/// the usual one, with TLS or for StartTLS: servers refer to each other in clear, and are asked with TLS.
fn followable<'a>(reference: &str, named: &'a [String]) -> Option<(&'a str, String, Scope)> {
    let usual = |url: &Url| match url.scheme() {
        "ldap" => Some(389),
        "ldaps" => Some(636),
        _ => None,
    };
    let at = |url: &Url| {
        let usual = usual(url)?;
        let port = url.port().filter(|port| *port != usual);
        Some((url.host_str()?.to_ascii_lowercase(), port))
    };
    let url = Url::parse(reference).ok()?;
    let wanted = at(&url)?;
    let server = named
        .iter()
        .find(|server| Url::parse(server).ok().and_then(|url| at(&url)).as_ref() == Some(&wanted))?;
    let parameters = get_url_params(&url).ok()?;
    Some((server, parameters.base.into_owned(), parameters.scope))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_followed_to_servers_that_are_named_only() {
        let named =
            ["ldaps://child.corp.example", "ldap://127.0.0.1:3890", "ldaps://[::1]:7636"].map(str::to_owned);
        for (reference, server, base) in [
            ("ldap://child.corp.example/DC=child,DC=corp,DC=example", Some(0), "DC=child,DC=corp,DC=example"),
            ("ldap://CHILD.corp.example:389/DC=a%20b??sub", Some(0), "DC=a b"),
            ("ldaps://child.corp.example:636/", Some(0), ""),
            ("ldap://child.corp.example:3268/DC=child", None, ""),
            ("ldap://corp.example/CN=Configuration,DC=corp,DC=example", None, ""),
            ("ldap://child.corp.example.evil.example/DC=child", None, ""),
            ("ldap://child.corp.example@evil.example/DC=child", None, ""),
            ("ldap://127.0.0.1:3890/ou=x??base", Some(1), "ou=x"),
            ("ldap://127.0.0.1/ou=x", None, ""),
            ("ldaps://[::1]:7636/ou=x", Some(2), "ou=x"),
            ("ldapi://child.corp.example/ou=x", None, ""),
            ("https://child.corp.example/ou=x", None, ""),
            ("ldap:///ou=x", None, ""),
            ("child.corp.example", None, ""),
            ("", None, ""),
        ] {
            let found = followable(reference, &named);
            let found = found.map(|(server, base, _)| (server.to_owned(), base));
            assert_eq!(found, server.map(|at: usize| (named[at].clone(), base.to_owned())), "{reference}");
        }
    }
}
