//! The user and password of a basic authentication (RFC 7617), as configured.

use std::fmt;

use adit_config::{Document, Key, Placed, SecretText, Section};
use adit_model::Code;
use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::PasswordHash;
use zeroize::Zeroizing;

/// Most bytes of a user name or password.
const MAX: usize = 256;

/// `user:password`, the password perhaps hashed already.
#[derive(Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// Non-empty, without a colon.
    pub user: String,
    /// The password or its hash.
    pub password: Password,
}

/// A password as it was configured.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// The password itself; to be hashed before it is kept anywhere.
    Plain(Zeroizing<String>),
    /// An Argon2id hash in PHC form (`$argon2id$…`).
    Hashed(String),
}

impl BasicAuth {
    /// Reads `user:password` or `user:$argon2id$…`.
    ///
    /// # Errors
    /// A clause that says what is wrong, without the password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (user, password) = text
            .split_once(':')
            .ok_or("there is no colon between user and password")?;
        if user.is_empty() {
            return Err("the user before the colon is empty");
        }
        if password.is_empty() {
            return Err("the password after the colon is empty");
        }
        if user.len() > MAX || password.len() > MAX {
            return Err("user and password have at most 256 bytes each");
        }
        if text.chars().any(char::is_control) {
            return Err("control characters cannot be typed into a browser");
        }
        let password = if password.starts_with("$argon2id$") {
            PasswordHash::new(password).map_err(|_| "the hash is damaged")?;
            Password::Hashed(password.to_owned())
        } else {
            Password::Plain(Zeroizing::new(password.to_owned()))
        };
        Ok(Self {
            user: user.to_owned(),
            password,
        })
    }
}

impl BasicAuth {
    /// `user:` and the PHC string of the password's Argon2id hash, as doors
    /// check it. Takes tens of milliseconds where it must be made.
    ///
    /// # Errors
    /// The library's refusal, which no valid value meets.
    pub fn hashed(&self, salt: [u8; 16]) -> Result<String, argon2::password_hash::Error> {
        match &self.password {
            Password::Hashed(hash) => Ok(format!("{}:{hash}", self.user)),
            Password::Plain(plain) => {
                let hash = Argon2::default().hash_password_with_salt(plain.as_bytes(), &salt)?;
                Ok(format!("{}:{hash}", self.user))
            }
        }
    }
}

/// Reads a key that holds `user:password`. The outer `None`: a mistake was
/// recorded; the inner: the key is absent.
pub(super) fn basic_auth(
    document: &Document<'_>,
    section: &Section<'_>,
    key: &Key<SecretText>,
) -> Option<Option<BasicAuth>> {
    let Some(given) = section.given(key) else {
        return (!section.is_given(key.name)).then_some(None);
    };
    let text = document.reveal(key.name, &given)?;
    match BasicAuth::parse(&text) {
        Ok(auth) => Some(Some(auth)),
        Err(why) => {
            let sentence = format!("`{}` wants user:password: {why}", key.name);
            let Placed { place, .. } = given;
            document.complain(Code::BAD_AUTH, &place, &sentence, None);
            None
        }
    }
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BasicAuth({}, hidden)", self.user)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_are_read_and_hidden() {
        let auth = BasicAuth::parse("ann:se:cret").unwrap();
        assert_eq!(auth.user, "ann");
        assert!(matches!(&auth.password, Password::Plain(p) if p.as_str() == "se:cret"));
        assert!(!format!("{auth:?} {:?}", auth.password).contains("cret"));
        let line = auth.hashed([7; 16]).unwrap();
        let hashed = BasicAuth::parse(&line).unwrap();
        assert!(matches!(hashed.password, Password::Hashed(_)));
        assert_eq!(hashed.hashed([8; 16]).unwrap(), line);
    }

    #[test]
    fn what_is_no_user_and_password_is_refused() {
        for bad in [
            "",
            "ann",
            ":x",
            "ann:",
            "an\nn:x",
            "ann:x\u{7}",
            "ann:$argon2id$x",
        ] {
            assert!(BasicAuth::parse(bad).is_err(), "{bad:?}");
        }
        assert!(BasicAuth::parse(&format!("ann:{}", "x".repeat(257))).is_err());
    }
}
