//! Passwords of local users: argon2id, few at once, and as slow for a name that nobody has.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use rand::distr::{Alphanumeric, SampleString};
use tokio::sync::Semaphore;

/// Hashing takes a core and 19 MiB for some 20 ms.
const AT_ONCE_MAX: usize = 2;
/// Logins that wait for those: the rest is refused, and may try again.
const WAITING_MAX: usize = 64;
pub const PASSWORD_CHARS_MIN: usize = 12;
/// Longest, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 256;
const GENERATED_CHARS: usize = 20;

pub struct Passwords {
    turns: Semaphore,
    queue: Semaphore,
    /// What a password is compared with where there is no user.
    nobodys: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRefused {
    #[error("too many logins at once: try again")]
    Busy,
    #[error("has fewer than {PASSWORD_CHARS_MIN} characters or more than {PASSWORD_BYTES_MAX} bytes")]
    Length,
}

impl Passwords {
    pub fn new() -> Self {
        let nobodys = hash(&generate());
        Self { turns: Semaphore::new(AT_ONCE_MAX), queue: Semaphore::new(WAITING_MAX), nobodys }
    }

    /// A password as it is kept.
    pub async fn hash(&self, password: &str) -> Result<String, PasswordRefused> {
        if password.chars().count() < PASSWORD_CHARS_MIN || password.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordRefused::Length);
        }
        let password = password.to_owned();
        self.in_turn(move || hash(&password)).await
    }

    /// Whether it is the one that is kept; none is kept of who does not exist or has no password.
    pub async fn is(&self, password: &str, kept: Option<&str>) -> Result<bool, PasswordRefused> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let (password, exists) = (password.to_owned(), kept.is_some());
        let kept = kept.unwrap_or(&self.nobodys).to_owned();
        let matches = move || {
            let Ok(kept) = PasswordHash::new(&kept) else { return false };
            Argon2::default().verify_password(password.as_bytes(), &kept).is_ok()
        };
        Ok(self.in_turn(matches).await? && exists)
    }

    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.turns.available_permits() == AT_ONCE_MAX
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordRefused> {
        let _place = self.queue.try_acquire().map_err(|_| PasswordRefused::Busy)?;
        let _turn = self.turns.acquire().await.map_err(|_| PasswordRefused::Busy)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| PasswordRefused::Busy)
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

/// A password that is shown once.
pub fn generate() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), GENERATED_CHARS)
}

fn hash(password: &str) -> String {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.expect("argon2's own parameters and a bounded password are valid").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_again_and_no_other_is() {
        let passwords = Passwords::new();
        let kept = passwords.hash("correct horse").await.unwrap();
        assert!(kept.starts_with("$argon2id$"), "{kept}");
        assert_ne!(kept, passwords.hash("correct horse").await.unwrap());
        assert_eq!(passwords.is("correct horse", Some(&kept)).await, Ok(true));
        for wrong in ["", "correct hors", "correct horse ", &"x".repeat(PASSWORD_BYTES_MAX + 1)] {
            assert_eq!(passwords.is(wrong, Some(&kept)).await, Ok(false), "{wrong}");
        }
        assert_eq!(passwords.is("correct horse", None).await, Ok(false));
        assert_eq!(passwords.is("correct horse", Some("malformed")).await, Ok(false));
        let generated = generate();
        assert!(passwords.hash(&generated).await.is_ok());
    }

    #[tokio::test]
    async fn a_password_has_limits_and_so_has_the_queue() {
        let passwords = Passwords::new();
        for wrong in ["eleven char".to_owned(), "x".repeat(PASSWORD_BYTES_MAX + 1)] {
            assert_eq!(passwords.hash(&wrong).await, Err(PasswordRefused::Length));
        }
        let _all = passwords.queue.acquire_many(WAITING_MAX as u32).await.unwrap();
        assert_eq!(passwords.is("correct horse", None).await, Err(PasswordRefused::Busy));
    }
}
