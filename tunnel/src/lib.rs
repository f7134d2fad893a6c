//! Sessions and streams between gateways and agents over QUIC; `PROTOCOL.md` fixes the bytes.
//!
//! ```text
//! Dialer ─────────── Session ═══ control stream: HELLO, GOAWAY, PING ═══ Session ─────────── Listener
//!                       └─ accept ─ Incoming ─ Stream ◄── one per request ── Stream ─ open ─┘
//! ```
//!
//! Opaque to it: who a user is, what a request says, what a cluster is.

mod budget;
mod close;
pub mod codec;
mod control;
mod dialer;
mod hello;
mod incoming;
mod limits;
mod listener;
mod outcome;
mod peer;
mod refusal;
mod session;
mod socket;
mod stream;
mod tls;
mod transport;

pub use budget::Owner;
pub use close::CloseReason;
pub use codec::StreamHeader;
pub use dialer::{DialError, Dialer};
pub use hello::{Capabilities, InstanceId};
pub use incoming::{Incoming, Received};
pub use limits::Limits;
pub use listener::Listener;
pub use outcome::{Outcome, OutcomeState};
pub use peer::{PeerId, PeerRefused};
pub use refusal::{Delivered, RefusalCode, StreamRefusal};
pub use session::{OpenError, Session, SessionId};
pub use socket::BindError;
pub use stream::Stream;
pub use tls::{Tls, TlsError};

#[cfg(test)]
mod tests;
