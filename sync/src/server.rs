//! Control's side of a call.

use std::future::{Ready, ready};

use bytes::Bytes;
use drover_api::sync::{FromControl, FromGateway, MESSAGE_BYTES_MAX};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use crate::codec::Json;

/// Messages that wait to be sent: chunks of a whole state, at most.
const PUSHES_MAX: usize = 4;

/// What a gateway says.
pub struct Gateway(Streaming<FromGateway>);

/// What control says; the call ends with it.
pub struct Push(mpsc::Sender<Result<FromControl, Status>>);

/// Answers a call; `begun` has to see to it from there, in a task that has an owner.
pub async fn serve<B>(
    request: http::Request<B>,
    begun: impl FnOnce(Gateway, Push) + Send,
) -> http::Response<Body>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let mut grpc =
        Grpc::new(Json::<FromControl, FromGateway>::new()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    grpc.streaming(Call(Some(begun)), request).await
}

impl Gateway {
    /// None once the gateway has ended the call.
    pub async fn next(&mut self) -> Option<Result<FromGateway, Status>> {
        self.0.next().await
    }
}

impl Push {
    /// Waits while the gateway reads slowly; an error once it is gone.
    pub async fn send(&self, message: FromControl) -> Result<(), Status> {
        self.0.send(Ok(message)).await.map_err(|_| Status::cancelled("the gateway is gone"))
    }

    /// Ends the call and says why.
    pub async fn refuse(self, status: Status) {
        // A gateway that is gone needs no reason.
        drop(self.0.send(Err(status)).await);
    }
}

struct Call<F>(Option<F>);

impl<F: FnOnce(Gateway, Push)> StreamingService<FromGateway> for Call<F> {
    type Response = FromControl;
    type ResponseStream = ReceiverStream<Result<FromControl, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<FromGateway>>) -> Self::Future {
        let (sender, receiver) = mpsc::channel(PUSHES_MAX);
        if let Some(begun) = self.0.take() {
            begun(Gateway(request.into_inner()), Push(sender));
        }
        ready(Ok(Response::new(ReceiverStream::new(receiver))))
    }
}
