//! Why a session ended, and its code on the wire.

use std::fmt;

use quinn::{ConnectionError, VarInt};

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    Closed,
    Drained,
    FormatUnsupported,
    HandshakeTimeout,
    IdentityInvalid,
    Lost,
    Overloaded,
    ProtocolViolation,
    Replaced,
    Shutdown,
    /// QUIC or TLS ended it: a handshake that failed, or a peer that forgot the connection.
    Transport,
    Unauthorized,
    /// A code that this version does not know.
    Unknown(u64),
    VersionUnsupported,
}

/// Every reason that has a code and a name on the wire.
const CODES: [(CloseReason, u32, &str); 12] = [
    (CloseReason::Closed, 0x00, "closed"),
    (CloseReason::Drained, 0x01, "drained"),
    (CloseReason::FormatUnsupported, 0x02, "format unsupported"),
    (CloseReason::HandshakeTimeout, 0x03, "handshake timed out"),
    (CloseReason::IdentityInvalid, 0x04, "certificate identity invalid"),
    (CloseReason::Lost, 0x05, "lost"),
    (CloseReason::Overloaded, 0x06, "overloaded"),
    (CloseReason::ProtocolViolation, 0x07, "protocol violation"),
    (CloseReason::Replaced, 0x08, "replaced"),
    (CloseReason::Shutdown, 0x09, "shutdown"),
    (CloseReason::Unauthorized, 0x0a, "unauthorized"),
    (CloseReason::VersionUnsupported, 0x0b, "version unsupported"),
];

impl CloseReason {
    /// What is sent for it; reasons that only the receiver can find out are sent as a plain close.
    pub(crate) fn code(self) -> VarInt {
        let found = CODES.iter().find(|(reason, _, _)| *reason == self);
        VarInt::from_u32(found.map_or(0, |(_, code, _)| *code))
    }

    pub(crate) fn from_code(code: u64) -> Self {
        let found = CODES.iter().find(|(_, known, _)| u64::from(*known) == code);
        found.map_or(Self::Unknown(code), |(reason, _, _)| *reason)
    }

    /// What a connection's error says, where the local side did not close it.
    pub(crate) fn from_error(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::from_code(close.error_code.into_inner()),
            ConnectionError::LocallyClosed => Self::Closed,
            ConnectionError::TimedOut => Self::Lost,
            ConnectionError::CidsExhausted
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::Reset
            | ConnectionError::TransportError(_)
            | ConnectionError::VersionMismatch => Self::Transport,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match CODES.iter().find(|(reason, _, _)| reason == self) {
            Some((_, _, name)) => f.write_str(name),
            None => match self {
                Self::Unknown(code) => write!(f, "closed with unknown code {code}"),
                _other => f.write_str("transport failed"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_as_its_reason() {
        for (reason, code, _) in CODES {
            assert_eq!(reason.code(), VarInt::from_u32(code));
            assert_eq!(CloseReason::from_code(code.into()), reason);
        }
        assert_eq!(CloseReason::from_code(0x7f), CloseReason::Unknown(0x7f));
    }
}
