//! What an agent counts.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

pub(crate) struct Metrics {
    ended: [Counter; Outcome::ALL.len()],
    sessions: Gauge,
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
        Self { ended, sessions: gauge!("agent_tunnel_sessions") }
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        self.ended[outcome as usize].increment(1);
    }

    pub(crate) fn session_began(&self) {
        self.sessions.increment(1.0);
    }

    pub(crate) fn session_ended(&self) {
        self.sessions.decrement(1.0);
    }
}
