//! How long a dialer waits before it dials again: full jitter, so that a fleet does not come back at once.

use std::time::Duration;

use rand::Rng;

/// The first attempt's longest wait.
const BASE: Duration = Duration::from_millis(100);
/// The longest wait of any attempt: how late an agent notices that a gateway is back.
const CAP: Duration = Duration::from_secs(5);

/// Waits that are random between nothing and a bound that doubles.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    bound: Duration,
}

impl Backoff {
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, bound: base.min(cap) }
    }

    /// The wait before the next attempt.
    pub fn next_wait(&mut self, rng: &mut impl Rng) -> Duration {
        let wait = self.bound.mul_f64(rng.random::<f64>());
        self.bound = self.bound.saturating_mul(2).min(self.cap);
        wait
    }

    /// Starts again from the base, after an attempt that worked.
    pub fn reset(&mut self) {
        self.bound = self.base.min(self.cap);
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(BASE, CAP)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_spread_over_a_bound_that_doubles_up_to_the_cap() {
        let mut rng = StdRng::seed_from_u64(7);
        for attempt in 0..10 {
            let bound = Duration::from_millis(100 << attempt).min(CAP);
            let waits: Vec<Duration> = (0..200)
                .map(|_| {
                    let mut backoff = Backoff::default();
                    for _ in 0..attempt {
                        backoff.next_wait(&mut rng);
                    }
                    backoff.next_wait(&mut rng)
                })
                .collect();
            assert!(waits.iter().all(|wait| *wait <= bound), "above {bound:?}");
            assert!(
                waits.iter().any(|wait| *wait < bound / 4) && waits.iter().any(|wait| *wait > bound / 4 * 3)
            );
        }
    }

    #[test]
    fn a_reset_starts_from_the_base() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut backoff = Backoff::default();
        for _ in 0..8 {
            backoff.next_wait(&mut rng);
        }
        backoff.reset();
        assert!(backoff.next_wait(&mut rng) <= BASE);
    }
}
