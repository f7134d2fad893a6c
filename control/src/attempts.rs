//! Counts failed logins, so that a password cannot be guessed at the speed of the machine.
//!
//! By name and client, so that guesses from elsewhere make nobody wait; by client, whatever names it tries; and by
//! name from everywhere, far higher, against guesses from very many clients.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use drover_daemon::client::counted_as;
use sha2::{Digest, Sha256};

/// Failures within a window, after which there is a wait for the window's end.
const OF_NAME_AND_CLIENT: u32 = 10;
const OF_CLIENT: u32 = 60;
const OF_NAME: u32 = 300;
const WINDOW: Duration = Duration::from_secs(60);
/// Counts that are kept: each client adds at most so many a window as it may fail.
const COUNTS_MAX: usize = 100_000;

/// A full table is looked through no more often: it is every failure's lock.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Attempts(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: HashMap<Counted, Count>,
    forgot: Option<Instant>,
}

/// SHA-256 of a name: whoever tries long ones takes no more memory by it.
type Name = [u8; 32];

/// Whose failures are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Counted {
    Both(Name, Option<IpAddr>),
    Client(Option<IpAddr>),
    Name(Name),
}

struct Count {
    began: Instant,
    failures: u32,
}

/// Who tries to be whom. Who came past the gateways is of no client.
#[derive(Clone, Debug)]
pub(crate) struct Try {
    name: Name,
    client: Option<IpAddr>,
}

impl Try {
    pub(crate) fn new(name: &str, client: Option<IpAddr>) -> Self {
        Self { name: Sha256::digest(name).into(), client: client.map(counted_as) }
    }

    fn counted(&self) -> [(Counted, u32); 3] {
        [
            (Counted::Both(self.name, self.client), OF_NAME_AND_CLIENT),
            (Counted::Client(self.client), OF_CLIENT),
            (Counted::Name(self.name), OF_NAME),
        ]
    }
}

impl Attempts {
    /// How long to wait; none where there may be a try.
    pub(crate) fn wait(&self, who: &Try, now: Instant) -> Option<Duration> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = who.counted().into_iter().filter_map(|(counted, max)| {
            let Count { began, failures } = counts.all.get(&counted)?;
            let left = WINDOW.checked_sub(now.duration_since(*began))?;
            (*failures >= max).then_some(left)
        });
        waits.max()
    }

    pub(crate) fn failed(&self, who: &Try, now: Instant) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (counted, _) in who.counted() {
            if !counts.all.contains_key(&counted) && !counts.has_room(now) {
                continue;
            }
            let count = counts.all.entry(counted).or_insert(Count { began: now, failures: 0 });
            if now.duration_since(count.began) >= WINDOW {
                *count = Count { began: now, failures: 0 };
            }
            count.failures += 1;
        }
    }

    /// Of the name there. What its client failed at with other names still counts.
    pub(crate) fn succeeded(&self, who: &Try) {
        let [(both, _), ..] = who.counted();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all.remove(&both);
    }
}

impl Counts {
    fn has_room(&mut self, now: Instant) -> bool {
        let due = self.forgot.is_none_or(|forgot| now.duration_since(forgot) >= FORGOTTEN_AFTER);
        if self.all.len() >= COUNTS_MAX && due {
            self.all.retain(|_, count| now.duration_since(count.began) < WINDOW);
            self.forgot = Some(now);
        }
        self.all.len() < COUNTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, client: &str) -> Try {
        Try::new(name, Some(client.parse().unwrap()))
    }

    #[test]
    fn guesses_make_the_guesser_wait_and_not_whom_they_guess_at() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let guesser = of("zoe", "192.0.2.1");
        for _ in 0..OF_NAME_AND_CLIENT {
            assert_eq!(attempts.wait(&guesser, now), None);
            attempts.failed(&guesser, now);
        }
        let later = now + WINDOW / 2;
        assert_eq!(attempts.wait(&guesser, later), Some(WINDOW / 2));
        assert_eq!(attempts.wait(&of("zoe", "192.0.2.2"), later), None, "zoe herself, elsewhere");
        assert_eq!(attempts.wait(&of("yan", "192.0.2.1"), later), None);
        assert_eq!(attempts.wait(&guesser, now + WINDOW + Duration::from_millis(1)), None);
        attempts.failed(&guesser, now + WINDOW);
        assert_eq!(attempts.wait(&guesser, now + WINDOW), None, "a new window counts anew");
        attempts.succeeded(&guesser);
        assert_eq!(attempts.wait(&guesser, now + WINDOW), None);
    }

    #[test]
    fn a_client_that_tries_many_names_waits_with_all_of_them() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for number in 0..OF_CLIENT {
            // Addresses of one /64 are one client.
            attempts.failed(&of(&number.to_string(), &format!("2001:db8::{number:x}")), now);
        }
        assert!(attempts.wait(&of("another", "2001:db8::ffff"), now).is_some());
        assert_eq!(attempts.wait(&of("another", "2001:db8:0:1::1"), now), None);
    }

    #[test]
    fn very_many_clients_at_one_name_make_it_wait() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for number in 0..OF_NAME {
            let client = IpAddr::V4((0xc000_0000 + number).into());
            attempts.failed(&Try::new("zoe", Some(client)), now);
        }
        assert!(attempts.wait(&of("zoe", "192.0.2.1"), now).is_some());
        assert_eq!(attempts.wait(&of("yan", "192.0.2.1"), now), None);
    }

    #[test]
    fn counts_are_kept_up_to_a_limit_and_forgotten_after_their_window() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for number in 0..=u32::try_from(COUNTS_MAX).unwrap() {
            attempts.failed(&Try::new(&number.to_string(), Some(IpAddr::V4(number.into()))), now);
        }
        assert_eq!(attempts.0.lock().unwrap().all.len(), COUNTS_MAX);
        attempts.failed(&of("later", "192.0.2.1"), now + WINDOW);
        assert_eq!(attempts.0.lock().unwrap().all.len(), 3);
    }
}
