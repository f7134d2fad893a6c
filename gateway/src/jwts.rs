//! The first use of a JWT of a trusted issuer, which is a login: control is asked, once for all who wait.
//!
//! From then on the JWT is a token, in the tables of every gateway, until it expires.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dashmap::DashMap;
use drover_api::rest::{self, JwtLogin};
use drover_api::status::Status;
use drover_api::token::{CredentialHash, Secret};
use drover_daemon::client::counted_as;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full, Limited};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;
use tracing::debug;

use crate::control::Api;
use crate::credential::Credential;
use crate::refusal::{JwtRefused, Refusal};
use crate::snapshot::Current;

/// Of the whole: control's answer, and its push of what the answer says.
const TIMEOUT: Duration = Duration::from_secs(2);
/// JWTs that control is asked about at once.
const ASKED_MAX: usize = 32;
/// JWTs that control refused are refused here for so long, and so many: a retry in a loop costs control nothing.
const REFUSED_FOR: Duration = Duration::from_secs(10);
const REFUSED_MAX: u64 = 10_000;
/// JWTs of one client that control refused within a minute: after them it is not asked about that client's others.
const FAILURES_MAX: u32 = 30;
const FAILURES_KEPT_FOR: Duration = Duration::from_secs(60);
const CLIENTS_MAX: u64 = 10_000;
const ANSWER_BYTES_MAX: usize = 64 << 10;

pub(crate) struct Jwts {
    control: Api,
    current: Arc<Current>,
    asked: Semaphore,
    asking: DashMap<CredentialHash, Arc<Cell>>,
    refused: moka::sync::Cache<CredentialHash, JwtRefused>,
    failures: moka::sync::Cache<IpAddr, Arc<AtomicU32>>,
}

/// One who waits for what control says of a JWT. The last of them takes the question away, however it ends.
struct Asking<'a> {
    all: &'a DashMap<CredentialHash, Arc<Cell>>,
    hash: CredentialHash,
    cell: Arc<Cell>,
}

type Cell = OnceCell<Result<(), JwtRefused>>;

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        // Of the map and of this one: entries are made and counted under the map's lock.
        self.all
            .remove_if(&self.hash, |_, cell| Arc::ptr_eq(cell, &self.cell) && Arc::strong_count(cell) <= 2);
    }
}

impl Jwts {
    pub(crate) fn new(control: Api, current: Arc<Current>) -> Self {
        let refused =
            moka::sync::Cache::builder().max_capacity(REFUSED_MAX).time_to_live(REFUSED_FOR).build();
        let failures =
            moka::sync::Cache::builder().max_capacity(CLIENTS_MAX).time_to_live(FAILURES_KEPT_FOR).build();
        let (asked, asking) = (Semaphore::new(ASKED_MAX), DashMap::new());
        Self { control, current, asked, asking, refused, failures }
    }

    /// Waits until the tables know the JWT, if it is one that control lets in.
    pub(crate) async fn log_in(&self, jwt: &Credential, client: Option<IpAddr>) -> Result<(), Refusal> {
        let hash = jwt.presented.hash;
        if let Some(refused) = self.refused.get(&hash) {
            return Err(Refusal::Jwt(refused));
        }
        if client.is_some_and(|client| self.has_failed_often(client)) {
            let message = "too many JWTs from this address were refused within a minute: try again later";
            return Err(Refusal::Jwt(JwtRefused::Full(message.to_owned())));
        }
        let asking = Asking { all: &self.asking, hash, cell: self.asking.entry(hash).or_default().clone() };
        let login = asking.cell.get_or_init(async || {
            let said = match timeout(TIMEOUT, self.exchange(jwt, client)).await {
                Ok(said) => said,
                Err(_) => Err(JwtRefused::Unanswered),
            };
            if let Err(refused @ JwtRefused::Refused(_)) = &said {
                self.refused.insert(hash, refused.clone());
                if let Some(client) = client {
                    self.failures.get_with(counted_as(client), Arc::default).fetch_add(1, Ordering::Relaxed);
                }
            }
            said
        });
        login.await.clone().map_err(Refusal::Jwt)
    }

    fn has_failed_often(&self, client: IpAddr) -> bool {
        let failures = self.failures.get(&counted_as(client));
        failures.is_some_and(|failures| failures.load(Ordering::Relaxed) >= FAILURES_MAX)
    }

    async fn exchange(&self, jwt: &Credential, client: Option<IpAddr>) -> Result<(), JwtRefused> {
        let Ok(_place) = self.asked.try_acquire() else { return Err(JwtRefused::Unanswered) };
        let (code, body) = self.ask(&jwt.secret, client).await.map_err(|error| {
            debug!(error = format!("{error:#}"), "control cannot be asked about a JWT");
            JwtRefused::Unanswered
        })?;
        match code {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::UNPROCESSABLE_ENTITY => {
                let status: Status = serde_json::from_slice(&body).map_err(|_| JwtRefused::Unanswered)?;
                return Err(JwtRefused::Refused(status.message));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let status: Status = serde_json::from_slice(&body).map_err(|_| JwtRefused::Unanswered)?;
                return Err(JwtRefused::Full(status.message));
            }
            _ => return Err(JwtRefused::Unanswered),
        }
        let mut changes = self.current.changes();
        loop {
            changes.borrow_and_update();
            if self.is_known(jwt) {
                return Ok(());
            }
            changes.changed().await.map_err(|_| JwtRefused::Unanswered)?;
        }
    }

    async fn ask(&self, jwt: &Secret, client: Option<IpAddr>) -> anyhow::Result<(StatusCode, Bytes)> {
        let body = serde_json::to_vec(&JwtLogin { jwt: jwt.expose().to_owned() })?;
        let mut request = http::Request::post(rest::JWT)
            .header(HOST, drover_api::enrolment::CONTROL_NAME)
            .header(CONTENT_TYPE, "application/json");
        if let Some(client) = client {
            request = request.header(rest::CLIENT, client.to_string());
        }
        let answer = self.control.call(request.body(Full::new(Bytes::from(body)))?).await?;
        let code = answer.head.status;
        let body = Limited::new(answer.body, ANSWER_BYTES_MAX).collect().await;
        Ok((code, body.map_err(|error| anyhow::anyhow!(error))?.to_bytes()))
    }

    fn is_known(&self, jwt: &Credential) -> bool {
        let tables = self.current.tables();
        let token = tables.as_ref().and_then(|tables| tables.token(&jwt.presented.id));
        token.is_some_and(|token| token.hash == jwt.presented.hash && token.expires_at > SystemTime::now())
    }
}
