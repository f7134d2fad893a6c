//! One request on its way: what is known of it, and what is said of it at its end.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use drover_tunnel::{OpenError, OutcomeState, RefusalCode, SessionId};
use http::header;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};

use super::{ATTEMPTS_MAX, client};
use crate::admit::{Admitted, Refused};
use crate::audit::{Record, Slot, Stage, Who};
use crate::dial::Dial;
use crate::live::Registered;
use crate::refusal::Refusal;
use crate::sessions::Sessions;
use crate::shares::Share;

/// One request, from its head to its record.
pub(crate) struct Request {
    pub(super) received_at: SystemTime,
    pub(super) began: Instant,
    pub(super) audit_id: Arc<str>,
    pub(super) state: State,
}

pub(super) enum State {
    /// Its head has been read.
    Received,
    Refused(Box<Refused>),
    Admitted(Box<InFlight>),
}

/// A permitted request on its way.
pub(super) struct InFlight {
    pub(super) admitted: Admitted,
    /// The latest attempt to send it.
    pub(super) dial: Option<Arc<Dial>>,
    pub(super) attempts: u8,
    /// Its place among those that go on for long, if it does.
    pub(super) live: Option<Registered>,
    /// Where its end will be recorded, if it must be.
    pub(super) slot: Option<Slot>,
    /// Where its beginning will be recorded, if it goes on for long.
    pub(super) start_slot: Option<Slot>,
    /// Its place among those that run at once.
    pub(super) _share: Share,
    /// Why it is answered here after all.
    pub(super) failure: Option<Refusal>,
}

impl Request {
    pub(super) fn in_flight(&mut self) -> pingora::Result<&mut InFlight> {
        match &mut self.state {
            State::Admitted(in_flight) => Ok(in_flight),
            State::Received | State::Refused(_) => {
                Error::e_explain(ErrorType::InternalError, "a request that was not admitted went on")
            }
        }
    }

    pub(super) fn is_long_running(&self) -> bool {
        matches!(&self.state, State::Admitted(in_flight) if in_flight.admitted.is_long_running())
    }

    pub(super) fn cluster(&self) -> Option<&str> {
        match &self.state {
            State::Received => None,
            State::Refused(refused) => refused.cluster.as_deref(),
            State::Admitted(in_flight) => Some(&in_flight.admitted.cluster_name),
        }
    }

    pub(super) fn who(&self) -> Option<&Who> {
        match &self.state {
            State::Received => None,
            State::Refused(refused) => refused.who.as_ref(),
            State::Admitted(in_flight) => Some(&in_flight.admitted.who),
        }
    }

    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match &self.state {
            State::Received => None,
            State::Refused(refused) => Some(&refused.refusal),
            State::Admitted(in_flight) => in_flight.failure.as_ref(),
        }
    }

    pub(super) fn start_slot(&mut self) -> Option<Slot> {
        match &mut self.state {
            State::Admitted(in_flight) => in_flight.start_slot.take(),
            State::Received | State::Refused(_) => None,
        }
    }

    pub(super) fn slot(&mut self) -> Option<Slot> {
        match &mut self.state {
            State::Admitted(in_flight) => in_flight.slot.take(),
            State::Received | State::Refused(_) => None,
        }
    }

    pub(super) fn failed(&mut self, refusal: Refusal) {
        match &mut self.state {
            State::Admitted(in_flight) => in_flight.failure = Some(refusal),
            State::Received | State::Refused(_) => {
                self.state = State::Refused(refusal.into());
            }
        }
    }

    /// What to answer after an error; nothing to a client that is gone.
    pub(super) fn failure(&self, error: &Error) -> Option<Refusal> {
        match error.esource() {
            ErrorSource::Downstream => match error.etype() {
                ErrorType::InvalidHTTPHeader => {
                    Some(Refusal::Head(crate::listener::head::HeadRefused::Malformed))
                }
                _ => None,
            },
            ErrorSource::Upstream | ErrorSource::Internal | ErrorSource::Unset => Some(match &self.state {
                State::Admitted(in_flight) => in_flight.diagnose(error),
                State::Received | State::Refused(_) => Refusal::Internal,
            }),
        }
    }

    pub(super) fn record(
        &self,
        session: &Session,
        stage: Stage,
        code: Option<http::StatusCode>,
        reason: Option<&'static str>,
    ) -> Record {
        let head = session.req_header();
        let agent = head.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        Record {
            audit_id: self.audit_id.clone(),
            stage,
            received_at: self.received_at,
            at: SystemTime::now(),
            method: head.method.as_str().to_owned(),
            uri: String::from_utf8_lossy(head.raw_path()).into_owned(),
            user_agent: agent.map(str::to_owned),
            source: client(session),
            cluster: self.cluster().map(str::to_owned),
            who: self.who().cloned(),
            attributes: match &self.state {
                State::Admitted(in_flight) => Some(in_flight.admitted.attributes.clone()),
                State::Refused(refused) => refused.refusal.attributes().cloned().map(Arc::new),
                State::Received => None,
            },
            code,
            reason,
            bytes_received: session.body_bytes_read() as u64,
            bytes_sent: session.body_bytes_sent() as u64,
        }
    }
}

impl InFlight {
    /// Ends an attempt with a refusal of ours, which is what the client will be told.
    pub(super) fn fail(&mut self, refusal: Refusal) -> Box<Error> {
        self.failure = Some(refusal);
        Error::explain(ErrorType::ConnectError, "no session")
    }

    /// A read may be sent once more: where its first stream broke without an answer, and where an agent turned
    /// it away while another is there that may not.
    pub(super) fn may_be_repeated(&self, sessions: &Sessions) -> bool {
        let worthwhile = match self.outcome() {
            Some(OutcomeState::Accepted | OutcomeState::Lost(_) | OutcomeState::Waiting) => true,
            Some(OutcomeState::Refused(refusal)) => match refusal.code {
                RefusalCode::Draining => true,
                RefusalCode::ClusterNotReady | RefusalCode::ClusterUnreachable | RefusalCode::Overloaded => {
                    sessions.pick(self.admitted.permit.cluster(), self.failed()).is_ok()
                }
                RefusalCode::DeadlineExceeded
                | RefusalCode::HeaderMalformed
                | RefusalCode::IdentityMalformed
                | RefusalCode::IdentityMissing
                | RefusalCode::IdentityRefused
                | RefusalCode::Internal => false,
            },
            None => false,
        };
        worthwhile
            && !self.has_lost_its_right()
            && self.attempts < ATTEMPTS_MAX
            && self.admitted.is_repeatable()
    }

    pub(super) fn has_lost_its_right(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.ended().is_cancelled())
    }

    /// The session of the latest attempt.
    pub(super) fn failed(&self) -> Option<SessionId> {
        self.dial.as_ref().map(|dial| dial.session().id())
    }

    pub(super) fn outcome(&self) -> Option<OutcomeState> {
        let opened = self.dial.as_ref()?.opened()?;
        opened.as_ref().ok().map(|outcome| outcome.get())
    }

    /// Why the latest attempt failed, from the tunnel's own word rather than from the error's text.
    pub(super) fn diagnose(&self, error: &Error) -> Refusal {
        if let Some(failure) = &self.failure {
            return failure.clone();
        }
        if self.has_lost_its_right() {
            return Refusal::AccessEnded;
        }
        if matches!(error.root_etype(), ErrorType::ReadTimedout) {
            return Refusal::UpstreamTimeout { idempotent: self.admitted.is_repeatable() };
        }
        match self.dial.as_ref().and_then(|dial| dial.opened()) {
            None => Refusal::Internal,
            Some(Err(OpenError::Overloaded)) => Refusal::Overloaded,
            Some(Err(OpenError::Closed | OpenError::Draining)) => Refusal::SessionReconnecting,
            Some(Err(OpenError::HeaderTooLarge)) => Refusal::IdentityTooLarge,
            Some(Ok(outcome)) => match outcome.get() {
                OutcomeState::Refused(refusal) => Refusal::Agent(refusal),
                OutcomeState::Lost(_) | OutcomeState::Waiting => Refusal::Lost,
                OutcomeState::Accepted if matches!(error.root_etype(), ErrorType::InvalidHTTPHeader) => {
                    Refusal::Tunnel
                }
                OutcomeState::Accepted => Refusal::Lost,
            },
        }
    }
}
