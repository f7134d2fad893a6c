//! OpenID Providers (OpenID Connect Core 1.0): the code flow with PKCE, and the refresh token to ask with again.
//!
//! Metadata and keys are fetched for each login: a provider that has new ones has them here at once.

use std::time::SystemTime;

use async_trait::async_trait;
use drover_api::kinds;
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreClientAuthMethod, CoreErrorResponseType, CoreProviderMetadata,
    CoreTokenResponse,
};
use openidconnect::{
    AuthType, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointMaybeSet, EndpointNotSet,
    EndpointSet, IssuerUrl, Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl,
    RefreshToken, RequestTokenError, Scope, StandardErrorResponse, TokenResponse,
};
use serde_json::Value;

use super::jwt::{ALGORITHMS, Claims, SKEW_MAX, claims};
use super::web::{Web, whole};
use super::{
    Begun, Directory, Found, Known, LoginRefused, Matches, NEVER_GIVEN, NotSearched, Person, Redirect,
    Unavailable,
};

type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;
type TokenError = RequestTokenError<Unavailable, StandardErrorResponse<CoreErrorResponseType>>;

pub(super) struct Oidc {
    config: kinds::Oidc,
    secret: String,
    web: Web,
}

/// A provider as it describes itself.
struct Met {
    client: Client,
    userinfo: Option<String>,
}

impl Oidc {
    pub(super) fn new(config: kinds::Oidc, secret: String) -> Result<Self, Unavailable> {
        let web = Web::new(config.ca.as_deref())?;
        Ok(Self { config, secret, web })
    }

    async fn meet(&self) -> Result<Met, Unavailable> {
        let issuer = IssuerUrl::new(self.config.issuer.clone());
        let issuer = issuer.map_err(|error| Unavailable(format!("the issuer is no URL: {error}")))?;
        let metadata = CoreProviderMetadata::discover_async(issuer, &self.web).await;
        let metadata =
            metadata.map_err(|error| Unavailable(format!("discovery failed: {}", whole(&error))))?;
        let secret = (!self.secret.is_empty()).then(|| ClientSecret::new(self.secret.clone()));
        let userinfo = metadata.userinfo_endpoint().map(|url| url.url().to_string());
        let methods = metadata.token_endpoint_auth_methods_supported();
        let basic = methods.is_none_or(|methods| methods.contains(&CoreClientAuthMethod::ClientSecretBasic));
        let auth = if basic { AuthType::BasicAuth } else { AuthType::RequestBody };
        let id = ClientId::new(self.config.client_id.clone());
        let client = CoreClient::from_provider_metadata(metadata, id, secret).set_auth_type(auth);
        Ok(Met { client, userinfo })
    }

    async fn exchange(
        &self,
        client: &Client,
        code: &str,
        verifier: &str,
        back: &str,
    ) -> Result<CoreTokenResponse, Exchange> {
        let back = RedirectUrl::new(back.to_owned()).map_err(|error| Unavailable(error.to_string()))?;
        let request = client.exchange_code(AuthorizationCode::new(code.to_owned()));
        let request = request.map_err(|error| Unavailable(error.to_string()))?;
        let request = request.set_pkce_verifier(PkceCodeVerifier::new(verifier.to_owned()));
        let request = request.set_redirect_uri(std::borrow::Cow::Owned(back));
        Ok(request.request_async(&self.web).await?)
    }

    /// Who a token answer is of. Without a nonce it answers to a refresh, where there may be no ID token.
    async fn known(
        &self,
        met: &Met,
        answer: &CoreTokenResponse,
        nonce: Option<&str>,
    ) -> Result<Known, LoginRefused> {
        let mut known = match answer.id_token() {
            Some(token) => {
                let now = SystemTime::now();
                let verifier = met.client.id_token_verifier().set_allowed_algs(ALGORITHMS);
                let verifier = verifier.set_time_fn(move || (now - SKEW_MAX).into());
                let checked = match nonce {
                    Some(nonce) => token.claims(&verifier, &Nonce::new(nonce.to_owned())).map(drop),
                    None => token.claims(&verifier, |_: Option<&Nonce>| Ok(())).map(drop),
                };
                checked.map_err(|error| denied(format!("its ID token does not hold: {}", whole(&error))))?;
                claims(&token.to_string()).ok_or_else(|| denied("its ID token is malformed"))?
            }
            None if nonce.is_none() => Claims::new(),
            None => return Err(denied("it gave no ID token: is the scope openid allowed?")),
        };
        if !known.contains_key(&self.config.groups_claim) || !known.contains_key(&self.config.login_claim) {
            let more = self.userinfo(met, answer.access_token().secret()).await?;
            // Of the same person (5.3.2).
            if known.get("sub").is_some_and(|sub| more.get("sub") != Some(sub)) {
                return Err(denied("the userinfo endpoint speaks of somebody else"));
            }
            for (name, value) in more {
                known.entry(name).or_insert(value);
            }
        }
        let grant = answer.refresh_token().map(|token| token.secret().clone());
        Ok(Known { person: self.person(&known)?, grant })
    }

    async fn userinfo(&self, met: &Met, token: &str) -> Result<Claims, Unavailable> {
        match &met.userinfo {
            Some(url) => self.web.get(url, Some(token)).await,
            None => Ok(Claims::new()),
        }
    }

    fn person(&self, claims: &Claims) -> Result<Person, LoginRefused> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let id = text("sub").ok_or_else(|| denied("it says no sub"))?;
        let login = &self.config.login_claim;
        let login =
            text(login).ok_or_else(|| denied(format!("it says no {login}: is its scope asked for?")))?;
        let groups = match claims.get(&self.config.groups_claim) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(group)) => vec![group.clone()],
            Some(Value::Array(groups)) => {
                let texts = groups.iter().map(|group| group.as_str().map(str::to_owned));
                texts.collect::<Option<_>>().ok_or_else(|| denied("its groups are no texts"))?
            }
            Some(_) => return Err(denied("its groups are no texts")),
        };
        let groups = groups.into_iter().map(|group| (group, None)).collect();
        Ok(Person { id, login, display_name: text("name"), groups })
    }
}

#[async_trait]
impl Directory for Oidc {
    async fn search(&self, _text: &str, _max: usize) -> Result<Matches, NotSearched> {
        let whom =
            "an OpenID Provider cannot be searched: its groups are as it writes them, NAME:group/GROUP";
        Err(NotSearched::NoSearch(whom))
    }

    async fn find(&self, id: &str, grant: Option<&str>) -> Result<Found, Unavailable> {
        let Some(grant) = grant else { return Ok(Found::Unknown) };
        let met = self.meet().await?;
        let refresh = RefreshToken::new(grant.to_owned());
        let request = met.client.exchange_refresh_token(&refresh);
        let request = request.map_err(|error| Unavailable(error.to_string()))?;
        let answer = match request.request_async(&self.web).await {
            Ok(answer) => answer,
            Err(TokenError::ServerResponse(said)) if *said.error() == CoreErrorResponseType::InvalidGrant => {
                return Ok(Found::Gone);
            }
            Err(error) => return Err(Unavailable(whole(&error))),
        };
        match self.known(&met, &answer, None).await {
            Ok(known) if known.person.id == id => {
                let grant = known.grant.or_else(|| Some(grant.to_owned()));
                Ok(Found::Known(Box::new(Known { grant, ..known })))
            }
            Ok(_) => Err(Unavailable("a refresh token of one person is answered with another".to_owned())),
            Err(refused) => Err(Unavailable(refused.to_string())),
        }
    }

    fn redirect(&self) -> Option<&dyn Redirect> {
        Some(self)
    }

    async fn test(&self, back: &str) -> Result<(), Unavailable> {
        let met = self.meet().await?;
        let (_, verifier) = PkceCodeChallenge::new_random_sha256();
        // Whatever it says to a code that it never gave, it must not say that it does not know us.
        match self.exchange(&met.client, NEVER_GIVEN, verifier.secret(), back).await {
            Err(Exchange::Refused(
                CoreErrorResponseType::InvalidClient | CoreErrorResponseType::UnauthorizedClient,
            )) => Err(Unavailable(format!(
                "the provider does not know the client, its secret is another, or its redirect URI is not {back}"
            ))),
            Err(Exchange::Unavailable(error)) => Err(error),
            Err(Exchange::Refused(_)) | Ok(_) => Ok(()),
        }
    }
}

#[async_trait]
impl Redirect for Oidc {
    async fn begin(&self, back: &str) -> Result<Begun, Unavailable> {
        let met = self.meet().await?;
        let back = RedirectUrl::new(back.to_owned()).map_err(|error| Unavailable(error.to_string()))?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut request = met
            .client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .set_pkce_challenge(challenge)
            .set_redirect_uri(std::borrow::Cow::Owned(back));
        for scope in self.config.scopes.iter().filter(|scope| *scope != "openid") {
            request = request.add_scope(Scope::new(scope.clone()));
            // Without, providers give no refresh token to who agreed before (Core 1.0, 11).
            if scope == "offline_access" {
                request = request.add_extra_param("prompt", "consent");
            }
        }
        let (url, state, nonce) = request.url();
        Ok(Begun {
            url: url.to_string(),
            state: state.secret().clone(),
            nonce: nonce.secret().clone(),
            verifier: verifier.secret().clone(),
        })
    }

    async fn finish(&self, back: &str, code: &str, begun: &Begun) -> Result<Known, LoginRefused> {
        let met = self.meet().await?;
        let answer = match self.exchange(&met.client, code, &begun.verifier, back).await {
            Ok(answer) => answer,
            Err(Exchange::Refused(error)) => return Err(denied(error.to_string())),
            Err(Exchange::Unavailable(error)) => return Err(error.into()),
        };
        self.known(&met, &answer, Some(&begun.nonce)).await
    }

    fn issuer(&self) -> Option<&str> {
        Some(&self.config.issuer)
    }
}

/// Why a code got no tokens.
enum Exchange {
    Refused(CoreErrorResponseType),
    Unavailable(Unavailable),
}

impl From<Unavailable> for Exchange {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

impl From<TokenError> for Exchange {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::ServerResponse(said) => Self::Refused(said.error().clone()),
            error => Self::Unavailable(Unavailable(whole(&error))),
        }
    }
}

fn denied(why: impl Into<String>) -> LoginRefused {
    LoginRefused::Denied(why.into())
}
