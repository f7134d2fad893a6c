//! The push channel between control and gateways: one gRPC call with a stream each way, JSON messages.

mod client;
mod codec;
mod server;

pub use client::{Following, follow};
pub use server::{Gateway, Push, serve};
pub use tonic::body::Body;
pub use tonic::{Code, Status};
