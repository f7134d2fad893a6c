//! Every number that bounds the tunnel, with its unit and reason.

use std::time::Duration;

/// Handshake and hello together: several round trips of a bad link, and short enough to free what a silent peer holds.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// From here unproven addresses must answer a Retry: a restart of a large fleet stays below it most of the time.
pub(crate) const HANDSHAKES_RETRY_ABOVE: usize = 64;
/// Handshakes at once; each costs about a millisecond of CPU, so these are done within the timeout.
pub(crate) const HANDSHAKES_MAX: usize = 512;
/// Sessions that are up and not yet taken by `accept`.
pub(crate) const SESSIONS_WAITING_MAX: usize = 256;

/// A dialer's connection window before its hello, in bytes: four longest hellos.
pub(crate) const WINDOW_BEFORE_HELLO: u32 = 16 * 1024;
/// A stream's window, in bytes: 84 Mbit/s for one stream at 100 ms, and what one stalled reader may hold.
pub(crate) const STREAM_WINDOW: u32 = 1024 * 1024;
/// Unacknowledged bytes of one connection: a stream's window sixteen times, so that neither one bulk stream on a long
/// link nor a few beside it wait for it (1.3 Gbit/s at 100 ms).
pub(crate) const SEND_WINDOW: u64 = 16 * 1024 * 1024;
/// Streams of one session at once; watches of a large cluster's users number in the thousands.
pub(crate) const STREAMS_MAX: u32 = 10_000;
/// Streams a dialer may open: the control stream.
pub(crate) const STREAMS_OF_DIALER_MAX: u32 = 1;
/// Largest UDP payload that is probed for: Ethernet's 1500 less IPv6 and UDP headers.
pub(crate) const MTU_UPPER: u16 = 1452;
/// UDP socket buffers, in bytes: tens of milliseconds of a fast link while the runtime is busy.
pub(crate) const UDP_BUFFER: usize = 4 * 1024 * 1024;

/// Silence after which an idle session is lost: three keepalives in a row. Whoever asks first after a peer
/// died without a word pays for finding out, so this is short.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(7);
/// How soon an idle agent finds out that its gateway was started again; NAT bindings last longer.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(2);
/// Between two stateless resets: a thousand agents are told within a second.
pub(crate) const RESET_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// How often a session with open streams looks at them: the resolution of what follows.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// Silent ticks before a PING: 1 s.
pub(crate) const SILENT_TICKS_PING: u32 = 4;
/// Silent ticks before a session with open streams is lost: 3 s.
pub(crate) const SILENT_TICKS_LOST: u32 = 12;
/// How soon a peer that is asked whether it is still there must be heard.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// For a control frame's way into the stream: longer means that the peer does not read.
pub(crate) const CONTROL_WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// For a stream's header to be complete: it is sent in one piece.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Header and first bytes of a request that leave together, in bytes: a few packets' worth of copying.
pub(crate) const COALESCED_BYTES_MAX: usize = 64 * 1024;
/// For the last packets of a closed endpoint to leave.
pub(crate) const CLOSE_LINGER: Duration = Duration::from_secs(1);

/// After this long without a poll a reader that took bytes has stalled: longer than a scheduling hiccup.
pub(crate) const STALL_AFTER: Duration = Duration::from_secs(1);
/// Clocks that differ by more than this are worth a warning: assertions tolerate as much.
pub(crate) const CLOCK_SKEW_MAX_MS: u64 = 60_000;

/// What a process may choose.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Unread bytes that stalled streams of one user may hold: 64 windows.
    pub unread_bytes_user_max: u64,
    /// Unread bytes that stalled streams of one cluster may hold: four such users.
    pub unread_bytes_cluster_max: u64,
    /// Unread bytes that all stalled streams may hold: a quarter of a 4 GiB gateway.
    pub unread_bytes_max: u64,
    /// Streams of one session at once.
    pub streams_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unread_bytes_user_max: 64 << 20,
            unread_bytes_cluster_max: 256 << 20,
            unread_bytes_max: 1 << 30,
            streams_max: STREAMS_MAX,
        }
    }
}
