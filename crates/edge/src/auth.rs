//! Passwords of routes and tunnels, checked without paying their hash for each
//! request.
//!
//! A login is kept as `user:$argon2id$…`. Checking one takes a core for tens of
//! milliseconds, on purpose; so what was checked is remembered for a while
//! under a keyed hash of everything that went into it. Invariants: nothing
//! remembered tells a password; what is wrong never pushes out what is right;
//! both tables are bounded; a hash that would cost too much is refused, because
//! an agent chooses it and the edge pays for it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use adit_link::entropy::random;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordVerifier, Version};
use aws_lc_rs::{constant_time, hmac};

use crate::http::Passwords;
use crate::state::StateError;

/// Logins remembered as right, and as many as wrong.
const REMEMBERED: usize = 4096;
/// Most bytes of `user:hash`.
const MAX_LOGIN: usize = 1024;
/// Most memory of one hash, KiB.
const MAX_MEMORY: u32 = 65_536;
/// Most memory times passes, KiB: about a third of a second.
const MAX_WORK: u64 = 262_144;
/// Most lanes.
const MAX_LANES: u32 = 16;

/// Why a login cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// No `user:` in front, or too long.
    #[error("a login is written as user:hash")]
    NotALogin,
    /// Not an Argon2id hash of version 0x13 with a salt.
    #[error("the password is not an Argon2id hash in PHC form")]
    NotAHash,
    /// It asks for too much memory or time.
    #[error("the hash costs too much: at most 64 MiB, 16 lanes, and 256 MiB over all passes")]
    TooCostly,
}

/// Looks at a login without checking a password.
///
/// # Errors
/// See [`LoginError`].
pub fn check_login(login: &str) -> Result<(), LoginError> {
    parse(login).map(drop)
}

fn parse(login: &str) -> Result<(&str, PasswordHash), LoginError> {
    if login.len() > MAX_LOGIN {
        return Err(LoginError::NotALogin);
    }
    let (user, phc) = login.split_once(':').ok_or(LoginError::NotALogin)?;
    if user.is_empty() {
        return Err(LoginError::NotALogin);
    }
    let hash = PasswordHash::new(phc).map_err(|_| LoginError::NotAHash)?;
    let is_argon2id = hash.algorithm == Algorithm::Argon2id.ident();
    let is_current = hash.version == Some(Version::V0x13.into());
    if !is_argon2id || !is_current || hash.salt.is_none() || hash.hash.is_none() {
        return Err(LoginError::NotAHash);
    }
    let params = Params::try_from(&hash).map_err(|_| LoginError::NotAHash)?;
    let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
    if params.m_cost() > MAX_MEMORY || work > MAX_WORK || params.p_cost() > MAX_LANES {
        return Err(LoginError::TooCostly);
    }
    Ok((user, hash))
}

type Mark = [u8; 32];

/// A bounded set of two generations: what is not asked for while the younger
/// one fills up is forgotten.
#[derive(Debug, Default)]
struct Recent {
    young: HashMap<Mark, ()>,
    old: HashMap<Mark, ()>,
}

impl Recent {
    fn contains(&mut self, mark: &Mark) -> bool {
        if self.young.contains_key(mark) {
            return true;
        }
        let is_old = self.old.remove(mark).is_some();
        if is_old {
            self.insert(*mark);
        }
        is_old
    }

    fn insert(&mut self, mark: Mark) {
        if self.young.len() >= REMEMBERED / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(mark, ());
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[derive(Debug, Default)]
struct Known {
    right: Recent,
    wrong: Recent,
}

/// Checks passwords and remembers what it found.
pub struct PasswordCache {
    key: hmac::Key,
    known: Mutex<Known>,
}

impl fmt::Debug for PasswordCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordCache")
    }
}

impl PasswordCache {
    /// Remembers nothing yet.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new() -> Result<Self, StateError> {
        let key: [u8; 32] = random().map_err(StateError::Random)?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            known: Mutex::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, login: &str, user: &str, password: &str) -> Mark {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [login, user, password] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut mark = [0; 32];
        mark.copy_from_slice(context.sign().as_ref());
        mark
    }
}

impl Passwords for PasswordCache {
    fn recall(&self, login: &str, user: &str, password: &str) -> Option<bool> {
        let mark = self.mark(login, user, password);
        let mut known = self.known();
        if known.right.contains(&mark) {
            return Some(true);
        }
        known.wrong.contains(&mark).then_some(false)
    }

    /// As slow whichever of user and password is wrong.
    fn verify(&self, login: &str, user: &str, password: &str) -> bool {
        let is_right = parse(login).is_ok_and(|(name, hash)| {
            let same = constant_time::verify_slices_are_equal(name.as_bytes(), user.as_bytes());
            let fits = Argon2::default().verify_password(password.as_bytes(), &hash);
            same.is_ok() & fits.is_ok()
        });
        let mark = self.mark(login, user, password);
        let mut known = self.known();
        if is_right {
            known.right.insert(mark);
        } else {
            known.wrong.insert(mark);
        }
        is_right
    }
}

#[cfg(test)]
mod tests {
    use argon2::PasswordHasher;

    use super::*;

    fn login_with(user: &str, password: &str, params: Params) -> String {
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash = argon.hash_password_with_salt(password.as_bytes(), b"0123456789abcdef");
        format!("{user}:{}", hash.unwrap())
    }

    fn cheap(m: u32, t: u32, p: u32) -> Params {
        Params::new(m, t, p, None).unwrap()
    }

    fn login(user: &str, password: &str) -> String {
        login_with(user, password, cheap(64, 1, 1))
    }

    #[test]
    fn a_password_is_checked_once_and_remembered() {
        let passwords = PasswordCache::new().unwrap();
        let login = login("ann", "se:cret");
        for (user, password, right) in [
            ("ann", "se:cret", true),
            ("ann", "secret", false),
            ("bob", "se:cret", false),
            ("ann", "", false),
        ] {
            assert_eq!(passwords.recall(&login, user, password), None);
            assert_eq!(passwords.verify(&login, user, password), right);
            assert_eq!(passwords.recall(&login, user, password), Some(right));
        }
        let other = self::login("ann", "other");
        assert_eq!(passwords.recall(&other, "ann", "se:cret"), None);
        // What is glued together differently is not the same.
        assert_eq!(passwords.recall(&login, "ann:se", "cret"), None);
    }

    #[test]
    fn the_usual_costs_are_taken_and_an_attack_is_not() {
        assert_eq!(
            check_login(&login_with("a", "p", Params::default())),
            Ok(())
        );
        let phc = |m: u64, t: u64, p: u64| {
            format!(
                "a:$argon2id$v=19$m={m},t={t},p={p}$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"
            )
        };
        assert_eq!(check_login(&phc(65_536, 3, 4)), Ok(()));
        for (m, t, p) in [
            (65_537, 1, 1),
            (4_194_304, 1, 1),
            (19_456, 1_000, 1),
            (65_536, 5, 1),
            (8 * 64, 1, 64),
        ] {
            let refused = check_login(&phc(m, t, p));
            assert_eq!(refused, Err(LoginError::TooCostly), "{m} {t} {p}");
        }
    }

    #[test]
    fn what_is_no_login_is_refused_and_never_right() {
        let passwords = PasswordCache::new().unwrap();
        let bcrypt = "a:$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW";
        let argon2i = login("a", "p").replace("argon2id", "argon2i");
        let old = login("a", "p").replace("v=19", "v=16");
        let no_hash = "a:$argon2id$v=19$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg";
        for (text, error) in [
            ("", LoginError::NotALogin),
            ("a", LoginError::NotALogin),
            (&login("", "p"), LoginError::NotALogin),
            (&"a".repeat(2000), LoginError::NotALogin),
            ("a:p", LoginError::NotAHash),
            (bcrypt, LoginError::NotAHash),
            (&argon2i, LoginError::NotAHash),
            (&old, LoginError::NotAHash),
            (no_hash, LoginError::NotAHash),
        ] {
            assert_eq!(check_login(text), Err(error), "{text}");
            assert!(!passwords.verify(text, "a", "p"), "{text}");
        }
    }

    #[test]
    fn wrong_passwords_push_nothing_right_out_and_memory_is_bounded() {
        let passwords = PasswordCache::new().unwrap();
        let login = login("ann", "right");
        assert!(passwords.verify(&login, "ann", "right"));
        for n in 0..3 * REMEMBERED {
            // No login, so that the check itself costs nothing.
            assert!(!passwords.verify("", "ann", &n.to_string()));
        }
        assert_eq!(passwords.recall(&login, "ann", "right"), Some(true));
        let known = passwords.known.lock().unwrap();
        assert!(known.wrong.len() <= REMEMBERED);
    }

    #[test]
    fn what_is_in_use_stays_remembered() {
        let mut recent = Recent::default();
        recent.insert([0; 32]);
        for n in 1..20_000u64 {
            let mut mark = [1; 32];
            mark[..8].copy_from_slice(&n.to_be_bytes());
            recent.insert(mark);
            assert!(recent.contains(&[0; 32]), "{n}");
            assert!(recent.len() <= REMEMBERED);
        }
    }
}
