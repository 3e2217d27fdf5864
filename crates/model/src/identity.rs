//! Ed25519 identities of edges and agents (RFC 8032).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

/// Why a key or a signature was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not `ed25519:` and 43 characters of base64url.
    #[error("a key is written as ed25519: and 43 characters of base64url")]
    NotAKey,
    /// The library refused the bytes.
    #[error("key bytes are not a valid Ed25519 key")]
    BadKey,
    /// The signature does not fit key and message.
    #[error("signature does not verify")]
    BadSignature,
}

/// The public half of an identity; printed, it is also the fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Checks a signature over `message`.
    ///
    /// # Errors
    /// [`IdentityError::BadSignature`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), IdentityError> {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .map_err(|_| IdentityError::BadSignature)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ed25519:{}",
            data_encoding::BASE64URL_NOPAD.encode(&self.0)
        )
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let encoded = text
            .trim()
            .strip_prefix("ed25519:")
            .ok_or(IdentityError::NotAKey)?;
        let bytes = data_encoding::BASE64URL_NOPAD
            .decode(encoded.as_bytes())
            .map_err(|_| IdentityError::NotAKey)?;
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| IdentityError::NotAKey)
    }
}

/// An identity with its private key.
pub struct Identity {
    pair: Ed25519KeyPair,
    seed: Zeroizing<[u8; 32]>,
    public: PublicKey,
}

impl Identity {
    /// Builds the identity of a 32-byte seed (RFC 8032 §5.1.5).
    ///
    /// # Errors
    /// [`IdentityError::BadKey`] when the library refuses the seed.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, IdentityError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| IdentityError::BadKey)?;
        let bytes = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| IdentityError::BadKey)?;
        Ok(Self {
            pair,
            seed: Zeroizing::new(seed),
            public: PublicKey(bytes),
        })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs `message`; deterministic.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(message);
        let mut bytes = [0; 64];
        bytes.copy_from_slice(signature.as_ref());
        bytes
    }

    /// The seed, to be written to a file of mode 0600.
    #[must_use]
    pub fn expose_seed(&self) -> &[u8; 32] {
        &self.seed
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text() {
        let id = Identity::from_seed([7; 32]).unwrap();
        let text = id.public().to_string();
        assert_eq!(text.parse::<PublicKey>().unwrap(), id.public());
        assert!("ed25519:short".parse::<PublicKey>().is_err());
        assert!(text["ed25519:".len()..].parse::<PublicKey>().is_err());
    }

    #[test]
    fn a_signature_binds_key_and_message() {
        let (a, b) = (
            Identity::from_seed([1; 32]).unwrap(),
            Identity::from_seed([2; 32]).unwrap(),
        );
        let signature = a.sign(b"m");
        assert!(a.public().verify(b"m", &signature).is_ok());
        assert!(a.public().verify(b"n", &signature).is_err());
        assert!(b.public().verify(b"m", &signature).is_err());
    }
}
