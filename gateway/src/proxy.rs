//! The way of a request, as Pingora's hooks.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use http::{HeaderValue, Method, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::{H1UpgradePolicy, HttpPeer};
use pingora::{Error, ErrorSource};
use tracing::debug;
use uuid::Uuid;

use crate::admit::{ANSWER_TIMEOUT, Admission, Refused};
use crate::audit::{Audit, Stage};
use crate::authenticate::AuthenticationRefused;
use crate::credential::{Shape, credential};
use crate::dial::Dial;
use crate::headers;
use crate::impersonate::{ImpersonationMalformed, wanted};
use crate::jwts::Jwts;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::relay::{Relay, Relayed};
use crate::route::{Form, location};
use crate::sessions::{NoSession, Sessions};
use crate::shares::Shares;

mod request;

pub(crate) use request::Request;
use request::{InFlight, State};

/// How long a read waits for an agent that is expected back.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a read is sent: once more after the first.
const ATTEMPTS_MAX: u8 = 2;
/// How long a refused request's body is read, so that its client sees the answer and not a reset.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of it is read, in bytes: a little above the 3 MiB that API servers take.
const DRAIN_BYTES_MAX: usize = 4 << 20;

/// The gateway's part in each request.
pub(crate) struct Proxy {
    pub admission: Admission,
    pub sessions: Arc<Sessions>,
    pub audit: Audit,
    pub metrics: Arc<Metrics>,
    pub live: Arc<Live>,
    pub shares: Arc<Shares>,
    /// None where there is no control.
    pub relay: Option<Relay>,
    /// The same.
    pub jwts: Option<Jwts>,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Request;

    fn new_ctx(&self) -> Request {
        self.metrics.request_began();
        Request {
            received_at: SystemTime::now(),
            began: Instant::now(),
            audit_id: Uuid::new_v4().to_string().into(),
            state: State::Received,
        }
    }

    /// None: bodies pass as they are, whatever modules could do to them.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, request: &mut Request) -> pingora::Result<bool> {
        session.ignore_downstream_range = true;
        session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
        let relayed = match () {
            () if self.admission.is_for_control(session.req_header()) => Some(Relayed::Api),
            () if self.admission.is_for_console(session.req_header()) => Some(Relayed::Console),
            () => None,
        };
        if let (Some(relay), Some(what)) = (&self.relay, relayed) {
            let relayed = match wanted(&session.req_header().headers) {
                Ok(None) => relay.relay(what, client(session), session).await?,
                Ok(Some(_)) | Err(_) => Err(Refusal::ImpersonationMalformed(ImpersonationMalformed::NotHere)),
            };
            if let Err(refusal) = relayed {
                self.refuse(session, &refusal, None, &request.audit_id).await?;
                request.state = State::Refused(refusal.into());
            }
            return Ok(true);
        }
        match self.begin_known(session, request).await {
            Ok(in_flight) => {
                request.state = State::Admitted(Box::new(in_flight));
                Ok(false)
            }
            Err(refused) => {
                self.refuse(session, &refused.refusal, refused.cluster.as_deref(), &request.audit_id).await?;
                request.state = State::Refused(refused);
                Ok(true)
            }
        }
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        request: &mut Request,
    ) -> pingora::Result<Box<HttpPeer>> {
        let in_flight = request.in_flight()?;
        in_flight.attempts += 1;
        let picked = self.pick(in_flight).await;
        let session = picked.map_err(|none| {
            in_flight.fail(match none {
                NoSession::Disconnected => Refusal::SessionDisconnected,
                NoSession::Reconnecting => Refusal::SessionReconnecting,
            })
        })?;
        let dial = {
            let ended = in_flight.live.as_ref().map(|live| live.ended().clone());
            Dial::new(session, in_flight.admitted.header.clone(), in_flight.admitted.owner, ended)
        };
        in_flight.dial = Some(dial.clone());
        // The address is never used: the dial is the connection.
        let mut peer = HttpPeer::new((Ipv4Addr::UNSPECIFIED, 0), false, String::new());
        peer.options.custom_l4 = Some(dial);
        // A stream serves one request: nothing is pooled, whatever the agent answers.
        peer.options.idle_timeout = Some(Duration::ZERO);
        peer.options.http_upstream_request_policy.h1_upgrade = H1UpgradePolicy::Preserve;
        peer.options.read_timeout = (!in_flight.admitted.is_long_running()).then_some(ANSWER_TIMEOUT);
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        request: &mut Request,
    ) -> pingora::Result<()> {
        let client = client(session);
        let audit_id = HeaderValue::from_str(&request.audit_id).expect("an audit id is a UUID");
        let admitted = &request.in_flight()?.admitted;
        upstream.set_raw_path(admitted.target.as_bytes())?;
        headers::to_upstream(upstream, &admitted.nominated, admitted.upgrade, &audit_id, client)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        request: &mut Request,
    ) -> pingora::Result<()> {
        headers::to_client(response)?;
        let admitted = &request.in_flight()?.admitted;
        if admitted.form == Form::Path
            && let Some(value) = response.headers.get(header::LOCATION).and_then(|value| value.to_str().ok())
            && let Some(rewritten) = location(value, &admitted.cluster_name)
        {
            response.insert_header(header::LOCATION, rewritten)?;
        }
        if admitted.is_long_running() && !is_interim(response) {
            let record = request.record(session, Stage::ResponseStarted, Some(response.status), None);
            match request.start_slot() {
                Some(slot) => slot.record(record),
                None => self.audit.offer(record),
            }
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        request: &mut Request,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Nothing was sent: whatever the method, another session may take it.
        let retry = request.in_flight().is_ok_and(|in_flight| in_flight.attempts < ATTEMPTS_MAX);
        error.set_retry(retry);
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        request: &mut Request,
        _reused: bool,
    ) -> Box<Error> {
        let unanswered = session.response_written().is_none();
        let upstream = *error.esource() == ErrorSource::Upstream;
        let retry = upstream
            && unanswered
            && request.in_flight().is_ok_and(|in_flight| in_flight.may_be_repeated(&self.sessions));
        if retry {
            self.metrics.retried();
        }
        error.set_retry(retry);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        request: &mut Request,
    ) -> FailToProxy {
        debug!(%error, audit_id = %request.audit_id, "request failed");
        let refusal = request.failure(error);
        let answered = session.response_written().is_some_and(|response| !is_interim(response));
        let error_code = match refusal {
            Some(refusal) if !answered => {
                let code = refusal.code().as_u16();
                let cluster = request.cluster().map(str::to_owned);
                let sent = self.refuse(session, &refusal, cluster.as_deref(), &request.audit_id).await;
                request.failed(refusal);
                if sent.is_ok() { code } else { 0 }
            }
            // A client must not take a part for the whole: reset the stream, or cut the connection.
            Some(_) | None => {
                self.metrics.aborted();
                session.shutdown().await;
                0
            }
        };
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, request: &mut Request) {
        self.metrics.request_ended();
        let code = session.response_written().map(|response| response.status);
        if let Some(code) = code {
            self.metrics.answered(code);
        }
        if !request.is_long_running() {
            self.metrics.took(request.began.elapsed());
        }
        let refusal = request.refusal();
        if let Some(refusal) = refusal {
            self.metrics.refused(refusal);
        }
        let reason = refusal.map(Refusal::cause).or_else(|| error.map(cut_short));
        let record = request.record(session, Stage::ResponseComplete, code, reason);
        match request.slot() {
            Some(slot) => slot.record(record),
            None if request.is_long_running() => self.audit.wait(record).await,
            None => self.audit.offer(record),
        }
    }

    /// Our own logs and metrics say what happened; a client that leaves a watch is no error.
    fn suppress_error_log(&self, _session: &Session, _request: &Request, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _request: &Request,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

impl Proxy {
    fn begin(&self, head: &RequestHeader, request: &Request) -> Result<InFlight, Box<Refused>> {
        let admitted = self.admission.admit(head, &request.audit_id, request.received_at)?;
        let user = &admitted.who.authenticated.user.principal;
        let share = match self.shares.take(user, admitted.permit.cluster()) {
            Ok(share) => share,
            Err(full) => {
                let (cluster, who) = (Some(admitted.cluster_name), Some(admitted.who));
                return Err(Box::new(Refused { refusal: Refusal::Busy(full), cluster, who }));
            }
        };
        let slots = (
            admitted.must_be_audited().then(|| self.audit.reserve()).transpose(),
            admitted.is_long_running().then(|| self.audit.reserve()).transpose(),
        );
        let (slot, start_slot) = match slots {
            (Ok(slot), Ok(start_slot)) => (slot, start_slot),
            (Err(_), _) | (_, Err(_)) => {
                let (cluster, who) = (Some(admitted.cluster_name), Some(admitted.who));
                return Err(Box::new(Refused { refusal: Refusal::AuditFull, cluster, who }));
            }
        };
        let live = admitted
            .is_long_running()
            .then(|| self.live.register(&admitted.who, admitted.permit.cluster(), &admitted.attributes));
        if let Some(live) = &live {
            self.admission.review(live);
        }
        Ok(InFlight {
            admitted,
            dial: None,
            attempts: 0,
            live,
            slot,
            start_slot,
            _share: share,
            failure: None,
        })
    }

    /// As [`Self::begin`]; where a JWT is shown that the tables do not know, once more after its login.
    async fn begin_known(&self, session: &Session, request: &Request) -> Result<InFlight, Box<Refused>> {
        let begun = self.begin(session.req_header(), request);
        let Err(refused) = &begun else { return begun };
        let unknown = matches!(
            refused.refusal,
            Refusal::Authentication(AuthenticationRefused::Expired | AuthenticationRefused::Unknown)
        );
        let (true, Some(jwts)) = (unknown, &self.jwts) else { return begun };
        match credential(&session.req_header().headers) {
            Ok(shown) if shown.shape == Shape::Jwt => jwts.log_in(&shown, client(session)).await?,
            Ok(_) | Err(_) => return begun,
        }
        self.begin(session.req_header(), request)
    }

    /// A session for the next attempt: reads wait a little for an agent that is expected back.
    async fn pick(&self, in_flight: &InFlight) -> Result<drover_tunnel::Session, NoSession> {
        let cluster = in_flight.admitted.permit.cluster();
        let failed = in_flight.failed();
        match self.sessions.pick(cluster, failed) {
            Err(NoSession::Reconnecting) if in_flight.admitted.is_repeatable() => {
                self.sessions.wait(cluster, failed, PATIENCE).await
            }
            picked => picked,
        }
    }

    /// Answers in the cluster's place. Where a body is still to come, the connection ends after it.
    async fn refuse(
        &self,
        session: &mut Session,
        refusal: &Refusal,
        cluster: Option<&str>,
        audit_id: &str,
    ) -> pingora::Result<()> {
        let target = String::from_utf8_lossy(session.req_header().raw_path());
        let (response, body) = refusal.response(cluster, &target, audit_id)?;
        let bodyless = session.req_header().method == Method::HEAD;
        let unread = !session.is_body_empty();
        if unread || session.is_upgrade_req() {
            session.set_keepalive(None);
        }
        session.write_response_header(Box::new(response), bodyless).await?;
        if !bodyless {
            session.write_response_body(Some(body), true).await?;
        }
        if unread && !session.is_http2() {
            drain(session).await;
        }
        Ok(())
    }
}

fn client(session: &Session) -> Option<IpAddr> {
    session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip())
}

/// 1xx answers precede the final one, except 101, which is final.
fn is_interim(response: &ResponseHeader) -> bool {
    response.status.is_informational() && response.status != http::StatusCode::SWITCHING_PROTOCOLS
}

/// The label of an answer that began and did not end.
fn cut_short(error: &Error) -> &'static str {
    match error.esource() {
        ErrorSource::Downstream => "ClientGone",
        ErrorSource::Upstream => "TunnelLost",
        ErrorSource::Internal | ErrorSource::Unset => "Internal",
    }
}

async fn drain(session: &mut Session) {
    let read_all = async {
        let mut read = 0;
        while let Ok(Some(part)) = session.as_downstream_mut().read_request_body().await {
            read += part.len();
            if read > DRAIN_BYTES_MAX {
                return;
            }
        }
    };
    if tokio::time::timeout(DRAIN_TIMEOUT, read_all).await.is_err() {
        debug!("a refused request's body did not end in time");
    }
}
