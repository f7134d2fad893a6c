//! What an agent counts.

use crate::identity::IdentityRefused;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

pub(crate) struct Metrics {
    ended: [Counter; Outcome::ALL.len()],
    sessions: Gauge,
    signatures_checked: Counter,
    identities_refused: [Counter; IdentityRefused::LABELS.len()],
    roster_revision: Gauge,
    rosters_refused: Counter,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Cancelled,
    Lost,
    Malformed,
    Refused,
    Served,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Cancelled, Self::Lost, Self::Malformed, Self::Refused, Self::Served];

    fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Malformed => "malformed",
            Self::Refused => "refused",
            Self::Served => "served",
        }
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe_counter!("agent_streams_total", "Streams that ended, by how.");
        describe_gauge!("agent_tunnel_sessions", "Sessions with gateways.");
        let ended =
            Outcome::ALL.map(|outcome| counter!("agent_streams_total", "outcome" => outcome.as_str()));
        describe_counter!(
            "agent_signatures_checked_total",
            "Signatures of assertions and proofs that were checked."
        );
        describe_counter!(
            "agent_identities_refused_total",
            "Users whom a gateway may not speak for, by why."
        );
        describe_gauge!("agent_roster_revision", "Revision of the roster in use.");
        describe_counter!(
            "agent_rosters_refused_total",
            "Rosters that a gateway brought and that were not taken up."
        );
        Self {
            ended,
            sessions: gauge!("agent_tunnel_sessions"),
            signatures_checked: counter!("agent_signatures_checked_total"),
            identities_refused: IdentityRefused::LABELS
                .map(|label| counter!("agent_identities_refused_total", "reason" => label)),
            roster_revision: gauge!("agent_roster_revision"),
            rosters_refused: counter!("agent_rosters_refused_total"),
        }
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        self.ended[outcome as usize].increment(1);
    }

    pub(crate) fn signature_checked(&self) {
        self.signatures_checked.increment(1);
    }

    pub(crate) fn identity_refused(&self, refused: &IdentityRefused) {
        self.identities_refused[refused.index()].increment(1);
    }

    pub(crate) fn roster_taken_up(&self, revision: u64) {
        self.roster_revision.set(revision as f64);
    }

    pub(crate) fn roster_refused(&self) {
        self.rosters_refused.increment(1);
    }

    pub(crate) fn session_began(&self) {
        self.sessions.increment(1.0);
    }

    pub(crate) fn session_ended(&self) {
        self.sessions.decrement(1.0);
    }
}
