//! What a gateway counts: handles made once, labels from closed sets, never a user or a path.

use std::time::Duration;

use http::StatusCode;
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use crate::refusal::Refusal;

/// Buckets of `gateway_request_duration_seconds`: from a cached get to the end of a slow list.
pub(crate) const DURATION_BUCKETS_S: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
pub(crate) const DURATION: &str = "gateway_request_duration_seconds";
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

pub(crate) struct Metrics {
    requests: [Counter; 5],
    requests_aborted: Counter,
    requests_retried: Counter,
    delegations_signed: Counter,
    requests_in_flight: Gauge,
    duration: Histogram,
    connections: Gauge,
    handshakes_failed: Counter,
    sessions: Gauge,
    control_connected: Gauge,
    snapshot_revision: Gauge,
    snapshots_refused: Counter,
    audit_dropped: Counter,
    audit_failed: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe_counter!("gateway_requests_total", "Requests answered, by class of status code.");
        describe_counter!(
            "gateway_requests_refused_total",
            "Requests that the gateway answered itself, by reason."
        );
        describe_counter!(
            "gateway_requests_aborted_total",
            "Answers cut short: the client or the tunnel went away."
        );
        describe_counter!("gateway_requests_retried_total", "Reads sent a second time on another session.");
        describe_counter!(
            "gateway_delegations_signed_total",
            "Signatures with credentials' own keys, for agents."
        );
        describe_gauge!("gateway_requests_in_flight", "Requests that have not ended.");
        describe_histogram!(DURATION, "Time to the end of a request that is not long-running.");
        describe_gauge!("gateway_connections", "Client connections.");
        describe_counter!("gateway_handshakes_failed_total", "TLS handshakes with clients that failed.");
        describe_gauge!("gateway_tunnel_sessions", "Sessions that agents hold here.");
        describe_gauge!("gateway_control_connected", "1 while control pushes to this gateway.");
        describe_gauge!("gateway_snapshot_revision", "Revision of the snapshot in use.");
        describe_counter!("gateway_snapshots_refused_total", "Snapshots that could not be used.");
        describe_counter!(
            "gateway_audit_events_dropped_total",
            "Records of reads that a full queue dropped."
        );
        describe_counter!(
            "gateway_audit_writes_failed_total",
            "Writes of audit records that failed and were tried again."
        );
        Self {
            requests: CLASSES.map(|class| counter!("gateway_requests_total", "code" => class)),
            requests_aborted: counter!("gateway_requests_aborted_total"),
            requests_retried: counter!("gateway_requests_retried_total"),
            delegations_signed: counter!("gateway_delegations_signed_total"),
            requests_in_flight: gauge!("gateway_requests_in_flight"),
            duration: histogram!(DURATION),
            connections: gauge!("gateway_connections"),
            handshakes_failed: counter!("gateway_handshakes_failed_total"),
            sessions: gauge!("gateway_tunnel_sessions"),
            control_connected: gauge!("gateway_control_connected"),
            snapshot_revision: gauge!("gateway_snapshot_revision"),
            snapshots_refused: counter!("gateway_snapshots_refused_total"),
            audit_dropped: counter!("gateway_audit_events_dropped_total"),
            audit_failed: counter!("gateway_audit_writes_failed_total"),
        }
    }

    pub(crate) fn request_began(&self) {
        self.requests_in_flight.increment(1.0);
    }

    pub(crate) fn request_ended(&self) {
        self.requests_in_flight.decrement(1.0);
    }

    pub(crate) fn answered(&self, code: StatusCode) {
        let class = usize::from(code.as_u16() / 100).clamp(1, CLASSES.len());
        self.requests[class - 1].increment(1);
    }

    pub(crate) fn took(&self, duration: Duration) {
        self.duration.record(duration.as_secs_f64());
    }

    pub(crate) fn aborted(&self) {
        self.requests_aborted.increment(1);
    }

    pub(crate) fn retried(&self) {
        self.requests_retried.increment(1);
    }

    pub(crate) fn delegation_signed(&self) {
        self.delegations_signed.increment(1);
    }

    pub(crate) fn refused(&self, refusal: &Refusal) {
        counter!("gateway_requests_refused_total", "reason" => refusal.cause()).increment(1);
    }

    pub(crate) fn connection_began(&self) {
        self.connections.increment(1.0);
    }

    pub(crate) fn connection_ended(&self) {
        self.connections.decrement(1.0);
    }

    pub(crate) fn handshake_failed(&self) {
        self.handshakes_failed.increment(1);
    }

    pub(crate) fn sessions_changed(&self, count: usize) {
        self.sessions.set(count as f64);
    }

    pub(crate) fn snapshot_taken_up(&self, revision: u64) {
        self.snapshot_revision.set(revision as f64);
    }

    pub(crate) fn control_connected(&self, connected: bool) {
        self.control_connected.set(f64::from(u8::from(connected)));
    }

    pub(crate) fn snapshot_refused(&self) {
        self.snapshots_refused.increment(1);
    }

    pub(crate) fn audit_dropped(&self) {
        self.audit_dropped.increment(1);
    }

    pub(crate) fn audit_failed(&self) {
        self.audit_failed.increment(1);
    }
}
