//! Readers that do not read, in both directions, and what they may hold.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::support::{Pair, agent_serves, header, soon};
use crate::limits::STREAM_WINDOW;
use crate::{Limits, OpenError, Owner, Stream};

const UPLOAD: u8 = b'u';
const DOWNLOAD: u8 = b'd';

/// Answers one byte with one byte, sends without end, or never reads what comes.
async fn serve(mut stream: Stream, parked: Arc<Semaphore>) {
    match stream.read_u8().await {
        Ok(DOWNLOAD) => while stream.write_all(&[0; 4096]).await.is_ok() {},
        Ok(UPLOAD) => {
            stream.flush().await.unwrap();
            let _forever = parked.acquire().await;
            // The stream is kept, unread, until the test ends.
            drop(stream);
        }
        Ok(_) => {
            stream.write_all(b"!").await.unwrap();
            stream.shutdown().await.unwrap();
        }
        Err(_) => {}
    }
}

async fn pair_that_serves(limits: Limits) -> (Pair, tokio_util::task::AbortOnDropHandle<()>) {
    let pair = Pair::with(limits).await;
    let parked = Arc::new(Semaphore::new(0));
    let serving = agent_serves(&pair.agent, move |incoming| {
        let parked = parked.clone();
        async move {
            let Ok(received) = incoming.receive().await else { return };
            serve(received.accept(Owner { user: 1, cluster: 1 }), parked).await;
        }
    });
    (pair, serving)
}

async fn round_trips(pair: &Pair, count: usize) {
    for _ in 0..count {
        let mut stream = pair.open(3);
        stream.write_all(b"?").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'!');
    }
}

async fn begun(pair: &Pair, kind: u8, user: u64) -> Stream {
    let mut stream = pair.open(user);
    stream.write_u8(kind).await.unwrap();
    stream
}

#[tokio::test]
async fn readers_that_never_read_stop_nobody_else() {
    let (pair, _serving) = pair_that_serves(Limits::default()).await;
    let mut readers = Vec::new();
    for number in 0..64 {
        let mut reader = begun(&pair, DOWNLOAD, number % 2).await;
        // One byte, so that the rest of its window fills behind it.
        soon(reader.read_u8()).await.unwrap();
        readers.push(reader);
    }
    soon(round_trips(&pair, 200)).await;
}

#[tokio::test]
async fn uploads_that_nobody_reads_stop_nobody_else() {
    let (pair, _serving) = pair_that_serves(Limits::default()).await;
    let mut uploads = tokio::task::JoinSet::new();
    for number in 0..64 {
        let mut upload = begun(&pair, UPLOAD, number % 2).await;
        uploads.spawn(async move { while upload.write_all(&[0; 4096]).await.is_ok() {} });
    }
    soon(round_trips(&pair, 200)).await;
    assert!(uploads.try_join_next().is_none(), "within every budget nothing is reset");
}

#[tokio::test]
async fn over_a_users_budget_only_the_longest_stalled_stream_is_reset() {
    let limits = Limits { unread_bytes_user_max: 2 * u64::from(STREAM_WINDOW), ..Limits::default() };
    let (pair, _serving) = pair_that_serves(limits).await;
    let mut readers = Vec::new();
    for user in [1, 1, 1, 2] {
        let mut reader = begun(&pair, DOWNLOAD, user).await;
        soon(reader.read_u8()).await.unwrap();
        readers.push(reader);
    }
    let first = readers.remove(0);
    soon(first.cancelled()).await;
    // The others' bytes are still to be had: far more than was in any buffer.
    for mut reader in readers {
        soon(reader.read_exact(&mut vec![0; 4 << 20])).await.unwrap();
    }
}

#[tokio::test]
async fn a_session_has_a_limit_of_streams() {
    let pair = Pair::with(Limits { streams_max: 2, ..Limits::default() }).await;
    let _open = [pair.open(1), pair.open(1)];
    let third = pair.gateway.open(&header(), Owner { user: 1, cluster: 1 });
    assert_eq!(third.unwrap_err(), OpenError::Overloaded);
}
