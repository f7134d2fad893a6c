//! Counts failed logins by name, so that a password cannot be guessed at the speed of the machine.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures of a name within a window, after which it has to wait for the window's end.
const FAILURES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Names that are remembered: who floods with names of nobody's makes room for no more of them.
const NAMES_MAX: usize = 10_000;

#[derive(Default)]
pub(crate) struct Attempts(Mutex<HashMap<String, (Instant, u32)>>);

impl Attempts {
    /// How long a name has to wait; none where it may try.
    pub(crate) fn wait(&self, name: &str, now: Instant) -> Option<Duration> {
        let attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, failures) = attempts.get(name)?;
        let left = WINDOW.checked_sub(now.duration_since(*began))?;
        (*failures >= FAILURES_MAX).then_some(left)
    }

    pub(crate) fn failed(&self, name: &str, now: Instant) {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.len() >= NAMES_MAX && !attempts.contains_key(name) {
            attempts.retain(|_, (began, _)| now.duration_since(*began) < WINDOW);
            if attempts.len() >= NAMES_MAX {
                return;
            }
        }
        let (began, failures) = attempts.entry(name.to_owned()).or_insert((now, 0));
        if now.duration_since(*began) >= WINDOW {
            (*began, *failures) = (now, 0);
        }
        *failures += 1;
    }

    pub(crate) fn succeeded(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_waits_after_too_many_failures_and_no_other_does() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for _ in 0..FAILURES_MAX {
            assert_eq!(attempts.wait("zoe", now), None);
            attempts.failed("zoe", now);
        }
        let later = now + WINDOW / 2;
        assert_eq!(attempts.wait("zoe", later), Some(WINDOW / 2));
        assert_eq!(attempts.wait("yan", later), None);
        assert_eq!(attempts.wait("zoe", now + WINDOW + Duration::from_millis(1)), None);
        attempts.failed("zoe", now + WINDOW);
        assert_eq!(attempts.wait("zoe", now + WINDOW), None, "a new window counts anew");
        attempts.succeeded("zoe");
        assert!(attempts.0.lock().unwrap().is_empty());
    }

    #[test]
    fn names_are_remembered_up_to_a_limit_and_forgotten_after_their_window() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for number in 0..=NAMES_MAX {
            attempts.failed(&number.to_string(), now);
        }
        assert_eq!(attempts.0.lock().unwrap().len(), NAMES_MAX);
        attempts.failed("later", now + WINDOW);
        assert_eq!(attempts.0.lock().unwrap().len(), 1);
    }
}
