//! Keeps the agent's identity in a Secret of its cluster, which all replicas share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use drover_enrol::{Identity, SaveFailed, Vault};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use serde_json::Value;
use tokio::time::timeout;

use crate::config::SecretName;
use crate::upstream::Upstream;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest Secret, in bytes: what API servers take.
const SECRET_BYTES_MAX: usize = 3 << 20;
/// The key of the Secret's data.
const KEY: &str = "identity.json";

pub(crate) struct SecretVault {
    upstream: Arc<Upstream>,
    secret: SecretName,
    /// As it was loaded last: what is saved takes its place, or nothing's.
    loaded: Mutex<Option<Value>>,
}

impl SecretVault {
    pub(crate) fn new(upstream: Arc<Upstream>, secret: SecretName) -> Self {
        Self { upstream, secret, loaded: Mutex::new(None) }
    }

    async fn ask(&self, method: Method, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
        let SecretName { namespace, name } = &self.secret;
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/namespaces/{namespace}/secrets/{name}"))
            .header(HOST, self.upstream.address().to_string())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, self.upstream.credential())
            .body(Full::new(body))?;
        let ask = async {
            let mut connection = self.upstream.handshake::<Full<Bytes>>().await?;
            let response = connection.send_request(request).await?;
            let code = response.status();
            let body = Limited::new(response.into_body(), SECRET_BYTES_MAX).collect().await;
            anyhow::Ok((code, body.map_err(anyhow::Error::from_boxed)?.to_bytes()))
        };
        timeout(TIMEOUT, ask).await.context("the API server took too long")?
    }
}

#[async_trait]
impl Vault for SecretVault {
    async fn load(&self) -> anyhow::Result<Option<Identity>> {
        let context = || format!("failed to read the Secret {}", self.secret);
        let (code, body) = self.ask(Method::GET, Bytes::new()).await.with_context(context)?;
        if code != StatusCode::OK {
            bail!("{}: the API server answers {code}", context());
        }
        let secret: Value = serde_json::from_slice(&body).with_context(context)?;
        let kept = secret["data"][KEY].as_str().filter(|kept| !kept.is_empty());
        let identity = kept.map(|kept| anyhow::Ok(serde_json::from_slice(&BASE64_STANDARD.decode(kept)?)?));
        let identity =
            identity.transpose().with_context(|| format!("{KEY} in the Secret {}", self.secret))?;
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(secret);
        Ok(identity)
    }

    async fn save(&self, identity: &Identity) -> Result<(), SaveFailed> {
        let context = || format!("failed to write the Secret {}", self.secret);
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut secret = loaded.with_context(context)?;
        let bytes = serde_json::to_vec(identity).with_context(context)?;
        secret["data"][KEY] = BASE64_STANDARD.encode(bytes).into();
        // With the version that was loaded: whoever was faster has changed it.
        let (code, _) = self.ask(Method::PUT, secret.to_string().into()).await.with_context(context)?;
        match code {
            StatusCode::OK => Ok(()),
            StatusCode::CONFLICT => Err(SaveFailed::Conflict),
            code => Err(anyhow::anyhow!("{}: the API server answers {code}", context()).into()),
        }
    }
}
