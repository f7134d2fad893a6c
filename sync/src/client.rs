//! The gateway's side: one call on one connection, which ends with it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use drover_api::sync::{FOLLOW, FromControl, FromGateway, MESSAGE_BYTES_MAX};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::{Request, Status, Streaming};

use crate::codec::Json;

/// How often a connection that says nothing is asked whether it still is one, and how long it may take.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Answers of ours that wait to be sent: control sends one push at a time.
const ANSWERS_MAX: usize = 4;

/// HTTP/2 wants one; what counts is the certificate.
const ORIGIN: &str = "https://control.drover";

/// A call that is open: what control pushes, and how to answer.
pub struct Following {
    pushes: Streaming<FromControl>,
    answers: mpsc::Sender<FromGateway>,
    _connection: AbortOnDropHandle<()>,
}

/// Begins to follow control over a connection that TLS has verified.
pub async fn follow<C>(connection: C, hello: FromGateway) -> Result<Following, Status>
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(connection));
    let (sender, driver) = handshake.await.map_err(unavailable)?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(driver.await) }));
    let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
    answers.send(hello).await.map_err(unavailable)?;
    let origin = http::Uri::from_static(ORIGIN);
    let mut grpc = Grpc::with_origin(Sender(sender), origin).max_decoding_message_size(MESSAGE_BYTES_MAX);
    grpc.ready().await.map_err(unavailable)?;
    let request = Request::new(ReceiverStream::new(receiver));
    let path = PathAndQuery::from_static(FOLLOW);
    let pushes = grpc.streaming(request, path, Json::<FromGateway, FromControl>::new()).await?.into_inner();
    Ok(Following { pushes, answers, _connection: connection })
}

impl Following {
    /// What control pushes next; an error once the call has ended.
    pub async fn next(&mut self) -> Result<FromControl, Status> {
        self.pushes.next().await.unwrap_or_else(|| Err(Status::unavailable("control ended the call")))
    }

    pub async fn answer(&self, answer: FromGateway) -> Result<(), Status> {
        self.answers.send(answer).await.map_err(unavailable)
    }
}

fn unavailable(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

/// A connection of hyper's as tonic takes one.
struct Sender(SendRequest<Body>);

impl Service<http::Request<Body>> for Sender {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
