//! One stream: from its header to a refusal, or to a request of its user's at the API server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use drover_tunnel::{Delivered, Incoming, Owner, Received, RefusalCode, Stream, StreamHeader, StreamRefusal};
use http::header::{CONNECTION, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body_util::{Either, Empty};
use hyper::body::{Body, Incoming as HttpBody};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tracing::debug;

use crate::identity::{Identities, IdentityRefused};
use crate::impersonation::Impersonation;
use crate::metrics::{Metrics, Outcome};
use crate::splice::splice;
use crate::upstream::readiness::Readiness;
use crate::upstream::{ConnectError, Connection, Upstream};

/// Header fields of a request: the gateway takes 256, and adds a few.
const REQUEST_HEADERS_MAX: usize = 300;
/// How much longer than the gateway the agent waits for an answer: the gateway's word is the clearer one.
const DEADLINE_GRACE: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Fields of one hop, which hyper sets for the next.
const HOP: [HeaderName; 4] = [
    CONNECTION,
    TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

pub(crate) struct Forwarder {
    pub identities: Arc<Identities>,
    pub upstream: Arc<Upstream>,
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
}

/// What a request needs besides itself.
struct Exchange {
    impersonation: Impersonation,
    deadline: Option<Duration>,
    /// The connection that is there for this request, before it and after its response's head.
    connection: Mutex<Option<Connection>>,
    /// Set by a request that asks for an upgrade, whatever becomes of it.
    switch: Mutex<Option<Switch>>,
}

/// The ends of an upgrade: the gateway's, and the API server's where that switched protocols.
struct Switch {
    gateway: OnUpgrade,
    api_server: Option<OnUpgrade>,
}

/// Why an accepted request got no answer. The stream is reset: the gateway finds words for it.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no answer before the deadline")]
    Deadline,
    #[error("a second request on one stream")]
    SecondRequest,
    #[error("switched protocols without being asked")]
    SwitchUnasked,
    #[error(transparent)]
    Upstream(#[from] hyper::Error),
}

impl Forwarder {
    /// Serves a gateway's stream to its end.
    pub(crate) async fn serve(&self, incoming: Incoming, gateway: &str) {
        let received = match incoming.receive().await {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "stream without a sound header");
                return self.metrics.ended(Outcome::Malformed);
            }
        };
        if received.header().roster {
            return self.identities.receive(received).await;
        }
        match self.prepare(received.header(), gateway).await {
            Ok(exchange) => self.accept(received, exchange).await,
            Err(refusal) => {
                debug!(audit_id = received.header().audit_id, %refusal, "stream refused");
                self.metrics.ended(Outcome::Refused);
                received.refuse(refusal).await;
            }
        }
    }

    /// Everything that can fail before anything is sent.
    async fn prepare(&self, header: &StreamHeader, gateway: &str) -> Result<Exchange, StreamRefusal> {
        let impersonation =
            self.identities.verify(header, gateway).await.map_err(|error| self.unidentified(&error))?;
        if let Some(soon) = self.readiness.state().is_expected_soon() {
            let message = "the API server is not ready".to_owned();
            return Err(unreachable(RefusalCode::ClusterNotReady, soon, message));
        }
        let connection = self.upstream.connection().await.map_err(|error| {
            self.readiness.lost();
            unreachable(RefusalCode::ClusterUnreachable, true, error.to_string())
        })?;
        Ok(Exchange {
            impersonation,
            deadline: header.deadline,
            connection: Mutex::new(Some(connection)),
            switch: Mutex::new(None),
        })
    }

    fn unidentified(&self, refused: &IdentityRefused) -> StreamRefusal {
        self.metrics.identity_refused(refused);
        let message = refused.to_string();
        StreamRefusal { code: refused.code(), delivered: Delivered::No, retry_after: None, message }
    }

    async fn accept(&self, received: Received, exchange: Exchange) {
        let audit_id = received.header().audit_id.clone();
        // One agent is one cluster; whose bytes they are is the gateway's to bound.
        let stream = received.accept(Owner { user: 0, cluster: 0 });
        let cancelled = stream.cancelled();
        let outcome = tokio::select! {
            result = self.exchange(stream, exchange) => match result {
                Ok(()) => Outcome::Served,
                Err(error) => {
                    debug!(audit_id, error = format!("{error:#}"), "request lost");
                    Outcome::Lost
                }
            },
            () = cancelled => Outcome::Cancelled,
        };
        debug!(audit_id, ?outcome, "stream ended");
        self.metrics.ended(outcome);
    }

    async fn exchange(&self, stream: Stream, exchange: Exchange) -> anyhow::Result<()> {
        let answer = service_fn(|request| self.answer(request, &exchange));
        http1::Builder::new()
            .keep_alive(false)
            .max_headers(REQUEST_HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), answer)
            .with_upgrades()
            .await?;
        match take(&exchange.switch) {
            Some(Switch { gateway, api_server: Some(api_server) }) => {
                return Ok(splice(TokioIo::new(gateway.await?), TokioIo::new(api_server.await?)).await?);
            }
            // hyper gives the stream back all the same, and leaves its end to us.
            // A connection on which an upgrade was asked for carries nothing else.
            Some(Switch { gateway, api_server: None }) => TokioIo::new(gateway.await?).shutdown().await?,
            None => {
                if let Some(connection) = take(&exchange.connection) {
                    self.upstream.keep(connection).await;
                }
            }
        }
        Ok(())
    }

    async fn answer(
        &self,
        mut request: Request<HttpBody>,
        exchange: &Exchange,
    ) -> Result<Response<HttpBody>, Lost> {
        let connection = take(&exchange.connection).ok_or(Lost::SecondRequest)?;
        let mut switch = request
            .headers()
            .contains_key(UPGRADE)
            .then(|| Switch { gateway: hyper::upgrade::on(&mut request), api_server: None });
        exchange.impersonation.apply(request.headers_mut(), self.upstream.credential());
        let sent = self.send(request, connection);
        let (mut response, connection) = match exchange.deadline {
            Some(deadline) => {
                timeout(deadline + DEADLINE_GRACE, sent).await.map_err(|_| Lost::Deadline)??
            }
            None => sent.await?,
        };
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches {
            let switch = switch.as_mut().ok_or(Lost::SwitchUnasked)?;
            switch.api_server = Some(hyper::upgrade::on(&mut response));
        }
        put(&exchange.switch, switch);
        if switches {
            return Ok(response);
        }
        put(&exchange.connection, Some(connection));
        for name in HOP {
            response.headers_mut().remove(name);
        }
        Ok(response)
    }

    /// Sends a request. A kept connection may have ended just now: what it surely did not carry, and
    /// what changes nothing, is sent once more on another.
    async fn send(
        &self,
        request: Request<HttpBody>,
        mut connection: Connection,
    ) -> Result<(Response<HttpBody>, Connection), Lost> {
        let again = repeatable(&request);
        let mut failed = match connection.try_send_request(request.map(Either::Left)).await {
            Ok(response) => return Ok((response, connection)),
            Err(failed) => failed,
        };
        let unsent = failed.take_message();
        let Some(request) = unsent.or(again) else { return Err(failed.into_error().into()) };
        let mut connection = self.upstream.connect().await?;
        Ok((connection.send_request(request).await?, connection))
    }
}

/// A copy of a request that changes nothing and has no body.
fn repeatable(request: &Request<HttpBody>) -> Option<Request<Either<HttpBody, Empty<Bytes>>>> {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    if !reads || !request.body().is_end_stream() || request.headers().contains_key(UPGRADE) {
        return None;
    }
    let mut copy = Request::new(Either::Right(Empty::new()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

fn unreachable(code: RefusalCode, soon: bool, message: String) -> StreamRefusal {
    StreamRefusal { code, delivered: Delivered::No, retry_after: soon.then_some(RETRY_AFTER), message }
}

fn put<T>(slot: &Mutex<Option<T>>, value: Option<T>) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}
