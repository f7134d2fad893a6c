//! Logins that a program begins and a person grants in a browser: on any machine (RFC 8628), or on the program's own,
//! where the browser brings it a code at a port that it listens on (RFC 8252, 7.3, with RFC 7636).
//!
//! They live in memory and for minutes: a control that starts again has its programs begin anew.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use drover_api::kinds::Session;
use drover_daemon::client::counted_as;
use rand::seq::IndexedRandom;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// How long a person has to grant.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);
/// How long a program waits between its questions, at first.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// By so much more after each question that came too soon (RFC 8628, 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// Clocks and networks are not exact.
const EARLY: Duration = Duration::from_millis(500);
const PENDING_MAX: usize = 10_000;
/// Of one client's address: a flood of its makes nobody else wait.
const PENDING_OF_CLIENT_MAX: usize = 200;
/// How long a browser has to bring a code, and the program to show it.
const CODE_LIFETIME: Duration = Duration::from_secs(60);
/// No vowels, so that no words come out, and nothing that looks alike (RFC 8628, 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const LETTERS_COUNT: usize = 8;

#[derive(Default)]
pub(crate) struct Devices(Mutex<HashMap<String, Pending>>);

struct Pending {
    /// Of a program on the browser's own machine.
    loopback: Option<Loopback>,
    client: Option<IpAddr>,
    user_code: String,
    ends: Instant,
    interval: Duration,
    asked: Option<Instant>,
    decision: Option<Decision>,
}

/// Where the browser brings a program its code, and what the program proves itself with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loopback {
    pub redirect_uri: String,
    /// Comes back as it is.
    pub state: String,
    /// SHA-256 of what the program will show, in base64url (S256).
    pub challenge: String,
}

/// A login that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// As the program shows it.
    pub user_code: String,
    /// The program is on the browser's own machine, and shows no code.
    pub is_here: bool,
}

/// What came of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decided {
    /// There was nothing to decide.
    Nothing,
    /// The program asks for itself.
    Told,
    /// The browser is to go there.
    Brought(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Denied,
    Granted(Grant),
}

/// Who granted a login, and from which session: what comes of it lasts no longer, and is no younger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub principal: String,
    pub session: Option<Session>,
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
    Granted(Grant),
    Pending,
    TooSoon,
}

#[cfg(test)]
impl From<&str> for Grant {
    fn from(principal: &str) -> Self {
        Self { principal: principal.to_owned(), session: None }
    }
}

impl Devices {
    /// None where too many wait already: in all, or of the client.
    pub(crate) fn begin(
        &self,
        client: Option<IpAddr>,
        loopback: Option<Loopback>,
        now: Instant,
    ) -> Option<Begun> {
        let client = client.map(counted_as);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= PENDING_MAX {
            all.retain(|_, pending| now < pending.ends);
        }
        let is_clients = |pending: &&Pending| pending.client == client && now < pending.ends;
        let of_client = all.values().filter(is_clients).count();
        if all.len() >= PENDING_MAX || of_client >= PENDING_OF_CLIENT_MAX {
            return None;
        }
        let device_code = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let user_code = loop {
            let code = draw();
            if !all.values().any(|pending| pending.user_code == code) {
                break code;
            }
        };
        let ends = now + LIFETIME;
        let pending = Pending {
            loopback,
            client,
            user_code: user_code.clone(),
            ends,
            interval: INTERVAL,
            asked: None,
            decision: None,
        };
        all.insert(device_code.clone(), pending);
        Some(Begun { device_code, user_code: shown(&user_code) })
    }

    /// A program's question. What was decided is told once; a grant only where it may be taken now.
    pub(crate) fn ask(&self, device_code: &str, may_take: bool, now: Instant) -> Asked {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = all.get_mut(device_code).filter(|pending| pending.loopback.is_none());
        let Some(pending) = pending else { return Asked::Expired };
        let too_soon = pending.asked.is_some_and(|asked| now + EARLY < asked + pending.interval);
        pending.asked = Some(now);
        let asked = match &pending.decision {
            _ if now >= pending.ends => Asked::Expired,
            _ if too_soon => {
                pending.interval += SLOW_DOWN;
                return Asked::TooSoon;
            }
            None => return Asked::Pending,
            Some(Decision::Granted(_)) if !may_take => return Asked::Pending,
            Some(Decision::Denied) => Asked::Denied,
            Some(Decision::Granted(grant)) => Asked::Granted(grant.clone()),
        };
        all.remove(device_code);
        asked
    }

    /// The user whom a code that a browser brought is good for. It is good for one try.
    pub(crate) fn exchange(
        &self,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
        now: Instant,
    ) -> Option<Grant> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = |pending: &Pending| matches!(pending.decision, Some(Decision::Granted(_)));
        all.get(code).filter(|pending| pending.loopback.is_some() && granted(pending))?;
        let pending = all.remove(code)?;
        let loopback = pending.loopback?;
        let shown = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        let same: bool = shown.as_bytes().ct_eq(loopback.challenge.as_bytes()).into();
        match pending.decision {
            Some(Decision::Granted(grant))
                if same && loopback.redirect_uri == redirect_uri && now < pending.ends =>
            {
                Some(grant)
            }
            Some(Decision::Denied | Decision::Granted(_)) | None => None,
        }
    }

    /// Whether a question or a code would be answered with a login: whoever takes it holds the lock of all writes, by
    /// which grants are taken back.
    pub(crate) fn is_granted(&self, code: &str) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(code).is_some_and(|pending| matches!(pending.decision, Some(Decision::Granted(_))))
    }

    /// Takes back what the user of a principal granted, and no program took yet.
    pub(crate) fn forget(&self, principal: &str) {
        let is_theirs = |decision: &Decision| matches!(decision, Decision::Granted(grant) if grant.principal == principal);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, pending| !pending.decision.as_ref().is_some_and(is_theirs));
    }

    /// What waits for a person with a code, however they wrote it.
    pub(crate) fn waiting(&self, user_code: &str, now: Instant) -> Option<Waiting> {
        let code = plain(user_code);
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.values().find(|pending| pending.is_open(&code, now))?;
        Some(Waiting { user_code: shown(&code), is_here: open.loopback.is_some() })
    }

    pub(crate) fn decide(&self, user_code: &str, decision: Decision, now: Instant) -> Decided {
        let code = plain(user_code);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.iter_mut().find(|(_, pending)| pending.is_open(&code, now));
        let Some((device_code, pending)) = open else { return Decided::Nothing };
        let decided = match &pending.loopback {
            None => Decided::Told,
            Some(Loopback { redirect_uri, state, .. }) => {
                let (name, value) = match decision {
                    Decision::Denied => ("error", "access_denied"),
                    Decision::Granted(_) => ("code", device_code.as_str()),
                };
                let query = form_urlencoded::Serializer::new(String::new())
                    .append_pair(name, value)
                    .append_pair("state", state)
                    .finish();
                pending.ends = pending.ends.min(now + CODE_LIFETIME);
                Decided::Brought(format!("{redirect_uri}?{query}"))
            }
        };
        pending.decision = Some(decision);
        decided
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
        let (begun, other) =
            (devices.begin(None, None, now).unwrap(), devices.begin(None, None, now).unwrap());
        assert_eq!(devices.ask(&begun.device_code, true, now), Asked::Pending);
        let typed = begun.user_code.to_lowercase().replace('-', " ");
        assert_eq!(
            devices.waiting(&typed, now).map(|waiting| waiting.user_code),
            Some(begun.user_code.clone())
        );
        assert_eq!((devices.waiting("", now), devices.waiting("AAAA-AAAA", now)), (None, None));
        let granted = Decision::Granted("local:user/1".into());
        assert_eq!(devices.decide(&typed, granted, now), Decided::Told);
        // Decided is decided.
        assert!(devices.waiting(&typed, now).is_none());
        assert_eq!(devices.decide(&typed, Decision::Denied, now), Decided::Nothing);
        let granted = devices.ask(&begun.device_code, true, now + INTERVAL);
        assert_eq!(granted, Asked::Granted("local:user/1".into()));
        assert_eq!(devices.ask(&begun.device_code, true, now + 2 * INTERVAL), Asked::Expired);
        assert_eq!(devices.decide(&other.user_code, Decision::Denied, now), Decided::Told);
        assert_eq!(devices.ask(&other.device_code, true, now + INTERVAL), Asked::Denied);
        assert_eq!(devices.ask("never-begun", true, now), Asked::Expired);
    }

    #[test]
    fn who_asks_too_often_is_slowed_down_and_who_waits_too_long_begins_anew() {
        let (devices, now) = (Devices::default(), Instant::now());
        let begun = devices.begin(None, None, now).unwrap();
        assert_eq!(devices.ask(&begun.device_code, true, now), Asked::Pending);
        assert_eq!(devices.ask(&begun.device_code, true, now + SECOND), Asked::TooSoon);
        // Five seconds more from then on.
        assert_eq!(devices.ask(&begun.device_code, true, now + 7 * SECOND), Asked::TooSoon);
        assert_eq!(devices.ask(&begun.device_code, true, now + 22 * SECOND), Asked::Pending);
        assert_eq!(devices.decide(&begun.user_code, Decision::Denied, now + LIFETIME), Decided::Nothing);
        assert_eq!(devices.ask(&begun.device_code, true, now + LIFETIME), Asked::Expired);
    }

    #[test]
    fn a_flood_of_beginnings_has_an_end_and_makes_room_after_it() {
        let (devices, now) = (Devices::default(), Instant::now());
        let template = devices.begin(None, None, now).unwrap();
        {
            let mut all = devices.0.lock().unwrap();
            for number in 1..PENDING_MAX {
                let pending = Pending {
                    loopback: None,
                    client: Some(IpAddr::V4(u32::try_from(number).unwrap().into())),
                    user_code: number.to_string(),
                    ends: now + LIFETIME,
                    interval: INTERVAL,
                    asked: None,
                    decision: None,
                };
                all.insert(number.to_string(), pending);
            }
        }
        assert!(devices.begin(None, None, now).is_none());
        assert!(devices.waiting(&template.user_code, now).is_some());
        assert!(devices.begin(None, None, now + LIFETIME).is_some());
    }

    #[test]
    fn one_clients_beginnings_make_nobody_else_wait() {
        let (devices, now) = (Devices::default(), Instant::now());
        let address = |text: String| Some(text.parse::<IpAddr>().unwrap());
        let (one, other) = (address("2001:db8::1".into()), address("2001:db8:0:1::1".into()));
        for number in 0..PENDING_OF_CLIENT_MAX {
            // Addresses of one /64 are one client.
            assert!(devices.begin(address(format!("2001:db8::{number:x}")), None, now).is_some());
        }
        assert!(devices.begin(one, None, now).is_none());
        assert!(devices.begin(other, None, now).is_some());
        assert!(devices.begin(one, None, now + LIFETIME).is_some());
    }

    #[test]
    fn a_code_that_a_browser_brings_is_good_once_for_the_program_that_asked() {
        const URI: &str = "http://127.0.0.1:4711/";
        let verifier = "a-verifier-of-the-programs-own-which-nobody-else-has";
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        let (devices, now) = (Devices::default(), Instant::now());
        let granted = || {
            let loopback =
                Loopback { redirect_uri: URI.into(), state: "s&1".into(), challenge: challenge.clone() };
            let begun = devices.begin(None, Some(loopback), now).unwrap();
            assert!(devices.waiting(&begun.user_code, now).unwrap().is_here);
            // What is nobody's yet, or was never shown to a device, is not had by asking.
            assert_eq!(devices.exchange(&begun.device_code, URI, verifier, now), None);
            assert_eq!(devices.ask(&begun.device_code, true, now), Asked::Expired);
            let decided = devices.decide(&begun.user_code, Decision::Granted("local:user/1".into()), now);
            let Decided::Brought(to) = decided else { panic!("{decided:?}") };
            assert_eq!(to, format!("{URI}?code={}&state=s%261", begun.device_code));
            begun.device_code
        };
        let code = granted();
        assert_eq!(devices.exchange(&code, URI, verifier, now), Some("local:user/1".into()));
        assert_eq!(devices.exchange(&code, URI, verifier, now), None, "twice");
        for (uri, shown, at) in [
            (URI, "another", now),
            (URI, "", now),
            (URI, &challenge[..], now),
            ("http://127.0.0.1:4712/", verifier, now),
            (URI, verifier, now + CODE_LIFETIME),
        ] {
            let code = granted();
            assert_eq!(devices.exchange(&code, uri, shown, at), None, "{uri} {shown}");
            assert_eq!(devices.exchange(&code, URI, verifier, now), None, "after a wrong try");
        }
        let device = devices.begin(None, None, now).unwrap();
        devices.decide(&device.user_code, Decision::Granted("local:user/1".into()), now);
        assert_eq!(devices.exchange(&device.device_code, URI, verifier, now), None, "of a device");
    }
}
