//! What became of a stream: a handle that outlives it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::close::CloseReason;
use crate::refusal::StreamRefusal;

#[derive(Clone, Debug)]
pub struct Outcome(Arc<Mutex<OutcomeState>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutcomeState {
    Accepted,
    /// The stream broke, before or after it was accepted; with the reason where its session ended.
    Lost(Option<CloseReason>),
    Refused(StreamRefusal),
    Waiting,
}

impl Outcome {
    pub(crate) fn new(state: OutcomeState) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    pub fn get(&self) -> OutcomeState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, state: OutcomeState) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
