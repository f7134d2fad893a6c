//! The bytes of an upgraded connection, both ways, untouched.

use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split};
use tokio::time::timeout;

/// How long one direction may go on after the other ended: what is on its way still arrives, and a
/// peer that never ends holds nothing.
const LINGER: Duration = Duration::from_secs(10);

pub(crate) async fn splice(
    one: impl AsyncRead + AsyncWrite + Unpin,
    other: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    let (mut one_read, mut one_write) = split(one);
    let (mut other_read, mut other_write) = split(other);
    let mut there = pin!(async {
        copy(&mut one_read, &mut other_write).await?;
        other_write.shutdown().await
    });
    let mut back = pin!(async {
        copy(&mut other_read, &mut one_write).await?;
        one_write.shutdown().await
    });
    let rest = tokio::select! {
        first = &mut there => { first?; timeout(LINGER, back).await }
        first = &mut back => { first?; timeout(LINGER, there).await }
    };
    rest.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_cross_and_a_half_that_never_ends_is_cut() {
        let ((mut client, one), (mut server, other)) = (duplex(64), duplex(64));
        let spliced = tokio::spawn(splice(one, other));
        client.write_all(b"there").await.unwrap();
        server.write_all(b"back").await.unwrap();
        server.shutdown().await.unwrap();
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"back");
        let mut five = [0; 5];
        server.read_exact(&mut five).await.unwrap();
        assert_eq!(&five, b"there");
        // The client stays open; time passes by itself.
        assert_eq!(spliced.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
