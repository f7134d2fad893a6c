//! Floods from peers without a credential: others are served, and memory has a bound. How much slower they are served
//! is `drover-loadtest floods`' to measure.

use std::time::{Duration, Instant};

use drover_testkit::client::Client;
use drover_testkit::floods::{Aim, Flood, KINDS, Kind};

use crate::bursts::resident;
use crate::system::{Fleet, soon};

/// Of one flood.
const LASTS: Duration = Duration::from_secs(3);
/// What a gateway may grow by, whatever comes.
const GROWTH_MAX: u64 = 192 << 20;

#[tokio::test]
async fn floods_leave_other_users_and_memory_alone() {
    let (fleet, server) = Fleet::with_api_server("floods").await;
    let aim = Aim {
        http1: Client::offering(&fleet.gateway, &[b"http/1.1"]).unwrap(),
        http2: Client::offering(&fleet.gateway, &[b"h2"]).unwrap(),
        tunnel: ([127, 0, 0, 1], fleet.gateway.tunnel_port).into(),
    };
    let client = fleet.client();
    for kind in KINDS {
        let before = resident(&fleet.running);
        let flood = Flood::start(kind, &aim);
        let (began, mut served) = (Instant::now(), 0);
        while began.elapsed() < LASTS {
            let answered = soon(client.get("one", "/version", &fleet.admin.token)).await;
            assert_eq!(answered.unwrap().0, 200, "{kind:?}");
            served += 1;
        }
        let (sent, after) = (flood.sent(), resident(&fleet.running));
        drop(flood);
        println!(
            "{kind:?}: {sent} sent, {served} of others served, {} MiB more",
            after.saturating_sub(before) >> 20
        );
        let at_least = if kind == Kind::SlowHeads { 500 } else { 20 };
        assert!(sent > at_least, "{kind:?}: {sent} are no flood");
        assert!(served > 3, "{kind:?}: {served}");
        assert!(after < before + GROWTH_MAX, "{kind:?}: {before} -> {after}");
    }
    // The tunnel that was there all the while.
    assert!(server.has_received("/version"));
}
