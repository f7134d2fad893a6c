//! Relays Drover's own API, `/v1`, to control, which authenticates and authorizes callers itself.
//!
//! Nothing of a cluster's request path passes here: a control that is slow or gone stops none of it.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use drover_api::rest;
use http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE,
    HOST, HeaderName, LOCATION, ORIGIN, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE, WARNING,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Method, Uri};
use http_body_util::{BodyExt, Full};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use crate::control::{Answer, Api};
use crate::refusal::Refusal;

/// Requests whose bodies are read at once, and those that are with control: who sends slowly takes no place there.
const READING_MAX: usize = 512;
const RELAYED_MAX: usize = 64;
/// Largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 256 << 10;
/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long control may take to answer: a change waits for gateways to serve from it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// What control needs of a request; all else stays here.
const TO_CONTROL: [HeaderName; 3] = [ACCEPT, AUTHORIZATION, CONTENT_TYPE];
const TO_CLIENT: [HeaderName; 4] = [CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WARNING];
/// The same for the console, whose sessions are cookies: no credential of the API's is one there.
const TO_CONSOLE: [HeaderName; 4] = [ACCEPT, CONTENT_TYPE, COOKIE, ORIGIN];
const TO_BROWSER: [HeaderName; 9] = [
    CACHE_CONTROL,
    CONTENT_DISPOSITION,
    CONTENT_SECURITY_POLICY,
    CONTENT_TYPE,
    LOCATION,
    REFERRER_POLICY,
    SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
];

/// What is relayed: each has fields of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relayed {
    Api,
    Console,
}

impl Relayed {
    fn to_control(self) -> &'static [HeaderName] {
        match self {
            Self::Api => &TO_CONTROL,
            Self::Console => &TO_CONSOLE,
        }
    }

    fn to_client(self) -> &'static [HeaderName] {
        match self {
            Self::Api => &TO_CLIENT,
            Self::Console => &TO_BROWSER,
        }
    }
}

pub(crate) struct Relay {
    control: Api,
    reading: Semaphore,
    relayed: Semaphore,
}

impl Relay {
    pub(crate) fn new(control: Api) -> Self {
        Self { control, reading: Semaphore::new(READING_MAX), relayed: Semaphore::new(RELAYED_MAX) }
    }

    /// Answers the request with control's answer; an error is told before anything was answered.
    pub(crate) async fn relay(
        &self,
        what: Relayed,
        client: Option<IpAddr>,
        session: &mut Session,
    ) -> pingora::Result<Result<(), Refusal>> {
        let Some(target) = target(session.req_header()) else {
            return Ok(Err(Refusal::Path("it is no path of a URL".to_owned())));
        };
        let Ok(reading) = self.reading.try_acquire() else { return Ok(Err(Refusal::Overloaded)) };
        let body = match timeout(BODY_TIMEOUT, body(session)).await {
            Ok(Ok(Some(body))) => body,
            Ok(Ok(None)) => return Ok(Err(Refusal::BodyTooLarge)),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(Err(Refusal::BodySlow)),
        };
        drop(reading);
        let Ok(_place) = self.relayed.try_acquire() else { return Ok(Err(Refusal::Overloaded)) };
        let answer =
            match timeout(ANSWER_TIMEOUT, self.ask(what, client, session.req_header(), target, body)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => {
                    debug!(error = format!("{error:#}"), "control is unreachable");
                    return Ok(Err(Refusal::ControlUnreachable));
                }
                Err(_) => return Ok(Err(Refusal::ControlUnreachable)),
            };
        pass_on(answer, what, session).await.map(Ok)
    }

    async fn ask(
        &self,
        what: Relayed,
        client: Option<IpAddr>,
        head: &RequestHeader,
        target: Uri,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let mut request = http::Request::builder().method(&head.method).uri(target);
        for name in what.to_control() {
            for value in head.headers.get_all(name) {
                request = request.header(name, value);
            }
        }
        if let Some(client) = client {
            request = request.header(rest::CLIENT, client.to_string());
        }
        let request = request.header(HOST, drover_api::enrolment::CONTROL_NAME);
        self.control.call(request.body(Full::new(body))?).await
    }
}

/// Its connection stays with the answer until the body has ended.
async fn pass_on(mut answer: Answer, what: Relayed, session: &mut Session) -> pingora::Result<()> {
    let mut response = ResponseHeader::build(answer.head.status, Some(what.to_client().len() + 1))?;
    for name in what.to_client() {
        for value in answer.head.headers.get_all(name) {
            response.append_header(name.clone(), value)?;
        }
    }
    match hyper::body::Body::size_hint(&answer.body).exact() {
        Some(length) => response.insert_header(http::header::CONTENT_LENGTH, length)?,
        None => response.insert_header(http::header::TRANSFER_ENCODING, "chunked")?,
    }
    let bodyless = session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(response), bodyless).await?;
    if bodyless {
        return Ok(());
    }
    while let Some(frame) = answer.body.frame().await {
        let frame = frame
            .map_err(|error| pingora::Error::explain(pingora::ErrorType::ReadError, error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            session.write_response_body(Some(data), false).await?;
        }
    }
    session.write_response_body(None, true).await
}

fn target(head: &RequestHeader) -> Option<Uri> {
    Uri::try_from(head.raw_path()).ok().filter(|target| target.authority().is_none())
}

/// The whole body; none where it is larger than control takes.
async fn body(session: &mut Session) -> pingora::Result<Option<Bytes>> {
    let mut body = BytesMut::new();
    while let Some(part) = session.read_request_body().await? {
        if body.len() + part.len() > BODY_BYTES_MAX {
            return Ok(None);
        }
        body.extend_from_slice(&part);
    }
    Ok(Some(body.freeze()))
}
