//! UDP sockets with buffers of a size that we chose.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Once;

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tracing::warn;

use crate::limits::UDP_BUFFER;
use crate::tls::TlsError;

/// Why an endpoint could not be made.
#[derive(Debug, Error)]
pub enum BindError {
    #[error("failed to open a UDP socket")]
    Socket(#[from] io::Error),
    #[error("failed to set TLS up")]
    Tls(#[from] TlsError),
}

pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    widen(&socket);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A socket on any port, of both address families where the machine has both.
pub(crate) fn bind_any() -> io::Result<UdpSocket> {
    bind((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| bind((Ipv4Addr::UNSPECIFIED, 0).into()))
}

/// Asks for large buffers; the kernel may give less, which costs packets under load and nothing else.
fn widen(socket: &Socket) {
    static WARNED: Once = Once::new();
    let asked =
        socket.set_recv_buffer_size(UDP_BUFFER).and_then(|()| socket.set_send_buffer_size(UDP_BUFFER));
    let given = socket.recv_buffer_size().and_then(|receive| Ok(receive.min(socket.send_buffer_size()?)));
    // Linux answers with twice the size, for its own bookkeeping.
    let given = given.map(|bytes| if cfg!(target_os = "linux") { bytes / 2 } else { bytes });
    match asked.and(given) {
        Ok(bytes) if bytes >= UDP_BUFFER => {}
        Ok(bytes) => WARNED.call_once(|| {
            warn!(
                bytes,
                wanted = UDP_BUFFER,
                "UDP buffers are small: raise net.core.rmem_max and net.core.wmem_max"
            );
        }),
        Err(error) => WARNED.call_once(|| warn!(%error, "UDP buffers could not be sized")),
    }
}
