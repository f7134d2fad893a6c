//! Requests to providers that are asked over HTTPS: bounded in time and size, and never redirected.

use std::error::Error;
use std::pin::Pin;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{Unavailable, trusting};

/// Of a whole request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A client that trusts a provider's authorities, and nobody else.
#[derive(Clone)]
pub(crate) struct Web(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Web {
    /// With authorities as PEM; without: those of the system.
    pub(crate) fn new(ca: Option<&str>) -> Result<Self, Unavailable> {
        let tls = match ca {
            Some(ca) => trusting(ca)?,
            None => {
                let builder = ClientConfig::builder().with_native_roots();
                let builder = builder.map_err(|error| {
                    Unavailable(format!("the system's authorities cannot be read: {error}"))
                })?;
                builder.with_no_client_auth()
            }
        };
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }

    pub(crate) async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Unavailable> {
        let (mut head, body) = request.into_parts();
        head.headers.insert(USER_AGENT, HeaderValue::from_static("drover"));
        let url = head.uri.clone();
        let request = Request::from_parts(head, Full::new(Bytes::from(body)));
        let ask = async {
            let answer = self.0.request(request).await.map_err(|error| whole(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>(Response::from_parts(head, body.into()))
        };
        match timeout(TIMEOUT, ask).await {
            Ok(answer) => answer.map_err(|problem| Unavailable(format!("{url}: {problem}"))),
            Err(_) => Err(Unavailable(format!("{url} does not answer within {TIMEOUT:?}"))),
        }
    }

    /// What is at a URL, as JSON: shown a token, where there is one.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        url: &str,
        token: Option<&str>,
    ) -> Result<T, Unavailable> {
        let mut request = Request::get(url).header(ACCEPT, "application/json");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request =
            request.body(Vec::new()).map_err(|error| Unavailable(format!("{url:?} is no URL: {error}")))?;
        let answer = self.send(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(Unavailable(format!("{url} answers {}", answer.status())));
        }
        serde_json::from_slice(answer.body())
            .map_err(|error| Unavailable(format!("{url} answers with what it should not: {error}")))
    }
}

/// For the library that speaks OAuth.
impl<'w> AsyncHttpClient<'w> for Web {
    type Error = Unavailable;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Unavailable>> + Send + 'w>>;

    fn call(&'w self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// With what lies below: that a client failed helps nobody.
pub(super) fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        text = format!("{text}: {error}");
        below = error.source();
    }
    text
}
