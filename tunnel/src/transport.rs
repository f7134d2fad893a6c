//! QUIC's parameters for each side.

use std::sync::Arc;

use quinn::{
    ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;

use crate::limits::{
    HANDSHAKES_MAX, IDLE_TIMEOUT, KEEPALIVE, Limits, MTU_UPPER, RESET_INTERVAL_MIN, SEND_WINDOW,
    STREAM_WINDOW, STREAMS_OF_DIALER_MAX, WINDOW_BEFORE_HELLO,
};
use crate::tls::{Tls, TlsError};

/// A listener starts with little and gives a peer more after its hello.
pub(crate) fn listener(tls: &Tls) -> Result<ServerConfig, TlsError> {
    let mut transport = common();
    transport.max_concurrent_bidi_streams(STREAMS_OF_DIALER_MAX.into());
    transport.receive_window(WINDOW_BEFORE_HELLO.into());
    let mut config = ServerConfig::with_crypto(Arc::new(tls.listener()?));
    config.transport_config(Arc::new(transport));
    config.max_incoming(HANDSHAKES_MAX);
    Ok(config)
}

/// A dialer gives all at once: no stream can reach it before TLS has proven the listener.
pub(crate) fn dialer(tls: &Tls, limits: &Limits) -> Result<ClientConfig, TlsError> {
    let mut transport = common();
    transport.max_concurrent_bidi_streams(limits.streams_max.into());
    transport.receive_window(VarInt::MAX);
    let mut config = ClientConfig::new(Arc::new(tls.dialer()?));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The same for every process with the same key: one that starts again can tell agents, by a stateless
/// reset (RFC 9000 section 10.3), that it has forgotten their sessions. They would find out at the idle
/// timeout otherwise.
pub(crate) fn listening_endpoint(tls: &Tls) -> EndpointConfig {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, tls.key_bytes());
    let derive = |purpose: &[u8]| hmac::sign(&secret, purpose);
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, derive(b"drover stateless reset").as_ref());
    let ids = derive(b"drover connection ids");
    let ids = ids.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config.min_reset_interval(RESET_INTERVAL_MIN);
    config
}

fn common() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_UPPER);
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("half a minute is within QUIC's range");
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(STREAM_WINDOW.into())
        .send_window(SEND_WINDOW)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEPALIVE))
        .mtu_discovery_config(Some(mtu));
    transport
}
