//! GitHub and GitHub Enterprise: OAuth apps' code flow with PKCE; organisations and teams are groups, by their ids.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use drover_api::kinds;
use form_urlencoded::Serializer;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, LINK, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use openidconnect::{CsrfToken, PkceCodeChallenge};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::web::Web;
use super::{
    Begun, Directory, Found, Known, LoginRefused, Match, Matches, NEVER_GIVEN, NotSearched, Person, Redirect,
    Unavailable,
};

const SCOPE: &str = "read:org";
const PAGE: usize = 100;
/// Requests for one person: pages of organisations and teams, and teams that those are in.
const REQUESTS_MAX: usize = 200;

pub(super) struct Github {
    config: kinds::Github,
    secret: String,
    web: Web,
    /// Of pages, and of the API.
    server: String,
    api: String,
}

/// Why GitHub said nothing of a person.
#[derive(Debug)]
enum NotSaid {
    /// The token is none any more, or the account is suspended.
    Gone,
    Unavailable(Unavailable),
}

#[derive(Deserialize)]
struct User {
    id: u64,
    login: String,
    name: Option<String>,
}

/// Of anybody, and of organisations.
#[derive(Deserialize)]
struct Account {
    #[serde(flatten)]
    user: User,
    r#type: String,
}

#[derive(Deserialize)]
struct Organisation {
    id: u64,
    login: String,
}

#[derive(Deserialize)]
struct Team {
    id: u64,
    slug: String,
    #[serde(default)]
    organization: Option<Organisation>,
    #[serde(default)]
    parent: Option<Parent>,
}

#[derive(Deserialize)]
struct Parent {
    url: String,
}

impl Team {
    /// As GitHub mentions it, without the sign.
    fn name(&self) -> String {
        let of = self.organization.as_ref().map(|organization| format!("{}/", organization.login));
        format!("{}{}", of.unwrap_or_default(), self.slug)
    }
}

/// RFC 6749, 5.1 and 5.2; but refusals are 200 as well.
#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Github {
    pub(super) fn new(config: kinds::Github, secret: String) -> Result<Self, Unavailable> {
        let web = Web::new(config.ca.as_deref())?;
        let (server, api) = match config.server.as_deref().map(|server| server.trim_end_matches('/')) {
            None => ("https://github.com".to_owned(), "https://api.github.com".to_owned()),
            Some(server) => (server.to_owned(), format!("{server}/api/v3")),
        };
        Ok(Self { config, secret, web, server, api })
    }

    /// A code's token, or what GitHub says instead.
    async fn exchange(&self, back: &str, code: &str, verifier: &str) -> Result<Answer, Unavailable> {
        let form = Serializer::new(String::new())
            .append_pair("client_id", &self.config.client_id)
            .append_pair("client_secret", &self.secret)
            .append_pair("code", code)
            .append_pair("redirect_uri", back)
            .append_pair("code_verifier", verifier)
            .finish();
        let url = format!("{}/login/oauth/access_token", self.server);
        let request = Request::post(&url)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.into_bytes())
            .map_err(|error| Unavailable(error.to_string()))?;
        let answer = self.web.send(request).await?;
        serde_json::from_slice(answer.body())
            .map_err(|_| Unavailable(format!("{url} answers {} and no token", answer.status())))
    }

    async fn ask(&self, url: &str, token: &str) -> Result<Response<Vec<u8>>, NotSaid> {
        // What it names itself is asked with the token too: of the API alone.
        if !url.strip_prefix(&self.api).is_some_and(|path| path.starts_with('/')) {
            return Err(Unavailable(format!("{url} is not of {}", self.api)).into());
        }
        let answer = self.get(url, &format!("Bearer {token}")).await?;
        let limited = answer.headers().contains_key(RETRY_AFTER)
            || answer.headers().get("x-ratelimit-remaining").is_some_and(|left| left == "0");
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::UNAUTHORIZED => Err(NotSaid::Gone),
            StatusCode::FORBIDDEN if !limited && url == format!("{}/user", self.api) => Err(NotSaid::Gone),
            _ => Err(said(url, &answer).into()),
        }
    }

    async fn get(&self, url: &str, authorization: &str) -> Result<Response<Vec<u8>>, Unavailable> {
        let request = Request::get(url)
            .header(ACCEPT, "application/vnd.github+json")
            .header(AUTHORIZATION, authorization)
            .body(Vec::new())
            .map_err(|error| Unavailable(error.to_string()))?;
        self.web.send(request).await
    }

    async fn person(&self, token: &str) -> Result<Person, NotSaid> {
        let user: User = parse(&self.ask(&format!("{}/user", self.api), token).await?)?;
        let mut groups = BTreeMap::new();
        let mut asked = 1;
        for organisation in self.all::<Organisation>("orgs", token, &mut asked).await? {
            groups.insert(format!("org-{}", organisation.id), Some(organisation.login));
        }
        let mut parents = Vec::new();
        for team in self.all::<Team>("teams", token, &mut asked).await? {
            groups.insert(format!("team-{}", team.id), Some(team.name()));
            parents.extend(team.parent);
        }
        // Who is in a team is in those that it is in, however far up.
        let mut seen = HashSet::new();
        while let Some(Parent { url }) = parents.pop() {
            if !seen.insert(url.clone()) {
                continue;
            }
            count(&mut asked)?;
            let team: Team = parse(&self.ask(&url, token).await?)?;
            groups.insert(format!("team-{}", team.id), Some(team.name()));
            parents.extend(team.parent);
        }
        Ok(Person { id: user.id.to_string(), login: user.login, display_name: user.name, groups })
    }

    /// All pages of what a person is in.
    async fn all<T: DeserializeOwned>(
        &self,
        what: &str,
        token: &str,
        asked: &mut usize,
    ) -> Result<Vec<T>, NotSaid> {
        let mut next = Some(format!("{}/user/{what}?per_page={PAGE}", self.api));
        let mut all = Vec::new();
        while let Some(url) = next {
            count(asked)?;
            let answer = self.ask(&url, token).await?;
            all.extend(parse::<Vec<T>>(&answer)?);
            next = next_page(answer.headers());
        }
        Ok(all)
    }
}

fn count(asked: &mut usize) -> Result<(), NotSaid> {
    *asked += 1;
    if *asked > REQUESTS_MAX {
        return Err(Unavailable(format!("a person's groups take more than {REQUESTS_MAX} requests")).into());
    }
    Ok(())
}

fn said(url: &str, answer: &Response<Vec<u8>>) -> Unavailable {
    let said = String::from_utf8_lossy(answer.body());
    let said: String = said.chars().filter(|letter| !letter.is_control()).take(200).collect();
    Unavailable(format!("{url} answers {}: {said}", answer.status()))
}

fn parse<T: DeserializeOwned>(answer: &Response<Vec<u8>>) -> Result<T, Unavailable> {
    serde_json::from_slice(answer.body())
        .map_err(|error| Unavailable(format!("GitHub answers with what it should not: {error}")))
}

/// Where `Link` has the next page (RFC 8288).
fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
    let mut links = links.flat_map(|links| links.split(','));
    links.find_map(|link| {
        let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|parameter| parameter.trim() == "rel=\"next\"");
        is_next.then(|| url.to_owned())
    })
}

#[async_trait]
impl Directory for Github {
    async fn find(&self, id: &str, grant: Option<&str>) -> Result<Found, Unavailable> {
        let Some(grant) = grant else { return Ok(Found::Unknown) };
        match self.person(grant).await {
            Ok(person) if person.id == id => {
                Ok(Found::Known(Box::new(Known { person, grant: Some(grant.to_owned()) })))
            }
            Ok(_) => Err(Unavailable("a token of one person is answered with another".to_owned())),
            Err(NotSaid::Gone) => Ok(Found::Gone),
            Err(NotSaid::Unavailable(error)) => Err(error),
        }
    }

    /// The account of that name: teams are told to their members alone, and searches to nobody without a login.
    async fn search(&self, text: &str, _max: usize) -> Result<Matches, NotSearched> {
        let mut matches = Matches::default();
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Ok(matches);
        }
        let app = BASE64_STANDARD.encode(format!("{}:{}", self.config.client_id, self.secret));
        let url = format!("{}/users/{text}", self.api);
        let answer = self.get(&url, &format!("Basic {app}")).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(matches),
            _ => return Err(said(&url, &answer).into()),
        }
        let Account { user: User { id, login, name }, r#type } = parse(&answer)?;
        let (found, id) = match r#type.as_str() {
            "Organization" => (&mut matches.groups, format!("org-{id}")),
            _ => (&mut matches.users, id.to_string()),
        };
        found.push(Match { id, name: login, display_name: name, dn: None });
        Ok(matches)
    }

    fn redirect(&self) -> Option<&dyn Redirect> {
        Some(self)
    }

    async fn test(&self, back: &str) -> Result<(), Unavailable> {
        match self.ask(&format!("{}/user", self.api), NEVER_GIVEN).await {
            Err(NotSaid::Gone) => {}
            Err(NotSaid::Unavailable(error)) => return Err(error),
            Ok(_) => return Err(Unavailable(format!("{} takes any token: it is no GitHub", self.api))),
        }
        let answer = self.exchange(back, NEVER_GIVEN, NEVER_GIVEN).await?;
        match answer.error.as_deref() {
            // The code is wrong, and nothing before it.
            Some("bad_verification_code") => Ok(()),
            Some("incorrect_client_credentials") => {
                Err(Unavailable("GitHub does not know the client, or its secret is another".to_owned()))
            }
            said => Err(Unavailable(format!("GitHub answers {said:?} to a code that it never gave"))),
        }
    }
}

#[async_trait]
impl Redirect for Github {
    async fn begin(&self, back: &str) -> Result<Begun, Unavailable> {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let state = CsrfToken::new_random().secret().clone();
        let query = Serializer::new(String::new())
            .append_pair("client_id", &self.config.client_id)
            .append_pair("redirect_uri", back)
            .append_pair("scope", SCOPE)
            .append_pair("state", &state)
            .append_pair("code_challenge", challenge.as_str())
            .append_pair("code_challenge_method", "S256")
            .finish();
        let url = format!("{}/login/oauth/authorize?{query}", self.server);
        Ok(Begun { url, state, nonce: String::new(), verifier: verifier.secret().clone() })
    }

    async fn finish(&self, back: &str, code: &str, begun: &Begun) -> Result<Known, LoginRefused> {
        let answer = self.exchange(back, code, &begun.verifier).await?;
        let Some(token) = answer.access_token else {
            let why = answer.error_description.or(answer.error).unwrap_or_default();
            return Err(LoginRefused::Denied(why));
        };
        match self.person(&token).await {
            Ok(person) => Ok(Known { person, grant: Some(token) }),
            Err(NotSaid::Gone) => Err(LoginRefused::Denied("the account is suspended".to_owned())),
            Err(NotSaid::Unavailable(error)) => Err(error.into()),
        }
    }
}

impl From<Unavailable> for NotSaid {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}
