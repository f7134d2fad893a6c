//! Logins that a program begins and a person grants in a browser (RFC 8628).
//!
//! They live in memory and for minutes: a control that starts again has its programs begin anew.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;

/// How long a person has to grant.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);
/// How long a program waits between its questions, at first.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// By so much more after each question that came too soon (RFC 8628, 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// Clocks and networks are not exact.
const EARLY: Duration = Duration::from_millis(500);
const PENDING_MAX: usize = 10_000;
/// No vowels, so that no words come out, and nothing that looks alike (RFC 8628, 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const LETTERS_COUNT: usize = 8;

#[derive(Default)]
pub(crate) struct Devices(Mutex<HashMap<String, Pending>>);

struct Pending {
    user_code: String,
    ends: Instant,
    interval: Duration,
    asked: Option<Instant>,
    decision: Option<Decision>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Denied,
    /// By the user of a principal.
    Granted(String),
}

/// What a program and a person get to know.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub device_code: String,
    /// `XXXX-XXXX`.
    pub user_code: String,
}

/// What a program's question is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Denied,
    /// Or never begun, or granted and taken before.
    Expired,
    Granted(String),
    Pending,
    TooSoon,
}

impl Devices {
    /// None where too many wait already.
    pub(crate) fn begin(&self, now: Instant) -> Option<Begun> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= PENDING_MAX {
            all.retain(|_, pending| now < pending.ends);
            if all.len() >= PENDING_MAX {
                return None;
            }
        }
        let device_code = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let user_code = loop {
            let code = draw();
            if !all.values().any(|pending| pending.user_code == code) {
                break code;
            }
        };
        let ends = now + LIFETIME;
        let pending =
            Pending { user_code: user_code.clone(), ends, interval: INTERVAL, asked: None, decision: None };
        all.insert(device_code.clone(), pending);
        Some(Begun { device_code, user_code: shown(&user_code) })
    }

    /// A program's question. What was decided is told once.
    pub(crate) fn ask(&self, device_code: &str, now: Instant) -> Asked {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pending) = all.get_mut(device_code) else { return Asked::Expired };
        let too_soon = pending.asked.is_some_and(|asked| now + EARLY < asked + pending.interval);
        pending.asked = Some(now);
        let asked = match &pending.decision {
            _ if now >= pending.ends => Asked::Expired,
            _ if too_soon => {
                pending.interval += SLOW_DOWN;
                return Asked::TooSoon;
            }
            None => return Asked::Pending,
            Some(Decision::Denied) => Asked::Denied,
            Some(Decision::Granted(principal)) => Asked::Granted(principal.clone()),
        };
        all.remove(device_code);
        asked
    }

    /// A person's code as the program shows it, if it waits for them, however they wrote it.
    pub(crate) fn waiting(&self, user_code: &str, now: Instant) -> Option<String> {
        let code = plain(user_code);
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().any(|pending| pending.is_open(&code, now)).then(|| shown(&code))
    }

    /// Whether there was something to decide.
    pub(crate) fn decide(&self, user_code: &str, decision: Decision, now: Instant) -> bool {
        let code = plain(user_code);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.values_mut().find(|pending| pending.is_open(&code, now));
        open.map(|pending| pending.decision = Some(decision)).is_some()
    }
}

impl Pending {
    fn is_open(&self, code: &str, now: Instant) -> bool {
        self.user_code == code && self.decision.is_none() && now < self.ends
    }
}

fn draw() -> String {
    let mut random = rand::rng();
    (0..LETTERS_COUNT).filter_map(|_| LETTERS.choose(&mut random)).map(|letter| char::from(*letter)).collect()
}

fn shown(code: &str) -> String {
    let (first, second) = code.split_at(LETTERS_COUNT / 2);
    format!("{first}-{second}")
}

fn plain(typed: &str) -> String {
    typed.chars().filter(char::is_ascii_alphabetic).map(|letter| letter.to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_a_person_grants_reaches_the_program_once() {
        let (devices, now) = (Devices::default(), Instant::now());
        let (begun, other) = (devices.begin(now).unwrap(), devices.begin(now).unwrap());
        assert_eq!(devices.ask(&begun.device_code, now), Asked::Pending);
        let typed = begun.user_code.to_lowercase().replace('-', " ");
        assert_eq!(devices.waiting(&typed, now), Some(begun.user_code.clone()));
        assert_eq!((devices.waiting("", now), devices.waiting("AAAA-AAAA", now)), (None, None));
        assert!(devices.decide(&typed, Decision::Granted("local:user/1".into()), now));
        // Decided is decided.
        assert!(devices.waiting(&typed, now).is_none() && !devices.decide(&typed, Decision::Denied, now));
        let granted = devices.ask(&begun.device_code, now + INTERVAL);
        assert_eq!(granted, Asked::Granted("local:user/1".into()));
        assert_eq!(devices.ask(&begun.device_code, now + 2 * INTERVAL), Asked::Expired);
        assert!(devices.decide(&other.user_code, Decision::Denied, now));
        assert_eq!(devices.ask(&other.device_code, now + INTERVAL), Asked::Denied);
        assert_eq!(devices.ask("never-begun", now), Asked::Expired);
    }

    #[test]
    fn who_asks_too_often_is_slowed_down_and_who_waits_too_long_begins_anew() {
        let (devices, now) = (Devices::default(), Instant::now());
        let begun = devices.begin(now).unwrap();
        assert_eq!(devices.ask(&begun.device_code, now), Asked::Pending);
        assert_eq!(devices.ask(&begun.device_code, now + SECOND), Asked::TooSoon);
        // Five seconds more from then on.
        assert_eq!(devices.ask(&begun.device_code, now + 7 * SECOND), Asked::TooSoon);
        assert_eq!(devices.ask(&begun.device_code, now + 22 * SECOND), Asked::Pending);
        assert!(!devices.decide(&begun.user_code, Decision::Denied, now + LIFETIME));
        assert_eq!(devices.ask(&begun.device_code, now + LIFETIME), Asked::Expired);
    }

    #[test]
    fn a_flood_of_beginnings_has_an_end_and_makes_room_after_it() {
        let (devices, now) = (Devices::default(), Instant::now());
        let template = devices.begin(now).unwrap();
        {
            let mut all = devices.0.lock().unwrap();
            for number in 1..PENDING_MAX {
                let pending = Pending {
                    user_code: number.to_string(),
                    ends: now + LIFETIME,
                    interval: INTERVAL,
                    asked: None,
                    decision: None,
                };
                all.insert(number.to_string(), pending);
            }
        }
        assert!(devices.begin(now).is_none());
        assert!(devices.waiting(&template.user_code, now).is_some());
        assert!(devices.begin(now + LIFETIME).is_some());
    }
}
