//! Key derivation: HKDF-SHA256 (RFC 5869) with one rule for its `info`, and
//! X25519 (RFC 7748).
//!
//! Every key here has 32 bytes, so that Expand is its first block:
//! `HMAC(prk, label ‖ 0x00 ‖ context ‖ 0x01)`.

use adit_model::Psk;
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::{constant_time, digest, hmac};
use zeroize::Zeroizing;

use crate::first::SecretId;

/// 32 secret bytes, wiped when dropped.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// Seconds for which a secret is named by one id.
pub const ID_EPOCH: u64 = 600;

/// Why a key could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are not a key of their algorithm.
    #[error("key bytes are not valid")]
    BadKey,
    /// The X25519 result is all zeros: the other share is of low order.
    #[error("the other side's key share is weak")]
    WeakShare,
    /// The epoch of the header is not, or no longer, known.
    #[error("unknown key epoch {0}")]
    UnknownEpoch(u32),
    /// All keys of their kind were drawn.
    #[error("no keys are left")]
    UsedUp,
}

pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    mac_with(&hmac::Key::new(hmac::HMAC_SHA256, key), parts)
}

pub(crate) fn mac_with(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// HKDF-Extract (RFC 5869 §2.2).
pub(crate) fn extract(salt: &[u8], parts: &[&[u8]]) -> Secret {
    Secret::new(mac(salt, parts))
}

/// HKDF-Expand to 32 bytes (RFC 5869 §2.3), `info = label ‖ 0x00 ‖ context`.
pub(crate) fn expand(prk: &[u8; 32], label: &str, context: &[&[u8]]) -> Secret {
    let key = hmac::Key::new(hmac::HMAC_SHA256, prk);
    let mut block = hmac::Context::with_key(&key);
    block.update(label.as_bytes());
    block.update(&[0]);
    for part in context {
        block.update(part);
    }
    block.update(&[1]);
    let mut out = Secret::default();
    out.copy_from_slice(block.sign().as_ref());
    out
}

/// Equality in constant time.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// The public share of a private one.
pub(crate) fn share_of(private: &[u8; 32]) -> Result<[u8; 32], KeyError> {
    let key = PrivateKey::from_private_key(&X25519, private).map_err(|_| KeyError::BadKey)?;
    let public = key.compute_public_key().map_err(|_| KeyError::BadKey)?;
    public.as_ref().try_into().map_err(|_| KeyError::BadKey)
}

/// X25519 with the all-zero result refused (RFC 7748 §6.1).
pub(crate) fn shared(private: &[u8; 32], theirs: &[u8; 32]) -> Result<Secret, KeyError> {
    let key = PrivateKey::from_private_key(&X25519, private).map_err(|_| KeyError::BadKey)?;
    let theirs = UnparsedPublicKey::new(&X25519, theirs);
    let mut out = Secret::default();
    agree(&key, theirs, KeyError::WeakShare, |bytes| {
        if bytes.len() != out.len() {
            return Err(KeyError::BadKey);
        }
        out.copy_from_slice(bytes);
        Ok(())
    })?;
    if same(out.as_slice(), &[0; 32]) {
        return Err(KeyError::WeakShare);
    }
    Ok(out)
}

/// The keys of one pre-shared secret.
pub struct PskKeys {
    id: hmac::Key,
    first: hmac::Key,
    psk: Psk,
}

impl PskKeys {
    /// Derives them.
    #[must_use]
    pub fn new(psk: &Psk) -> Self {
        let prk = extract(b"adit/1 secret", &[psk.bytes()]);
        let key = |label| hmac::Key::new(hmac::HMAC_SHA256, expand(&prk, label, &[]).as_slice());
        Self {
            id: key("adit/1 secret id"),
            first: key("adit/1 first message"),
            psk: psk.clone(),
        }
    }

    /// The secret's id at a unix time; it changes every [`ID_EPOCH`] seconds.
    #[must_use]
    pub fn id_at(&self, unix: u64) -> SecretId {
        id_of(&self.id, unix / ID_EPOCH)
    }

    /// The ids of the epochs before, at and after a unix time.
    #[must_use]
    pub fn ids_around(&self, unix: u64) -> [SecretId; 3] {
        ids_around(&self.id, unix)
    }

    pub(crate) fn first_key(&self) -> &hmac::Key {
        &self.first
    }

    pub(crate) fn psk(&self) -> &Psk {
        &self.psk
    }
}

impl std::fmt::Debug for PskKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PskKeys(hidden)")
    }
}

pub(crate) fn id_of(key: &hmac::Key, epoch: u64) -> SecretId {
    let whole = mac_with(key, &[&epoch.to_be_bytes()]);
    let mut id = [0; 8];
    id.copy_from_slice(&whole[..8]);
    SecretId(id)
}

pub(crate) fn ids_around(key: &hmac::Key, unix: u64) -> [SecretId; 3] {
    let epoch = unix / ID_EPOCH;
    [epoch.saturating_sub(1), epoch, epoch.saturating_add(1)].map(|e| id_of(key, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> [u8; 32] {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        bytes.try_into().unwrap()
    }

    #[test]
    fn x25519_agrees_with_rfc_7748() {
        let out = shared(
            &hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
            &hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
        );
        let expected = hex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
        assert_eq!(*out.unwrap(), expected);
        let base = hex("0900000000000000000000000000000000000000000000000000000000000000");
        let expected = hex("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
        assert_eq!(share_of(&base).unwrap(), expected);
    }

    #[test]
    fn hkdf_agrees_with_rfc_5869() {
        let ikm = [0x0b; 22];
        let salt: Vec<u8> = (0..=12).collect();
        let prk = extract(&salt, &[&ikm]);
        let expected = hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
        assert_eq!(*prk, expected);
    }

    #[test]
    fn shares_of_low_order_are_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        let minus_one = hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
        let order_eight = hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
        for weak in [[0; 32], one, minus_one, order_eight] {
            assert_eq!(shared(&[7; 32], &weak), Err(KeyError::WeakShare));
        }
    }

    #[test]
    fn an_id_lasts_its_epoch_and_is_found_around_it() {
        let keys = PskKeys::new(&Psk::from_random([5; 32]));
        let other = PskKeys::new(&Psk::from_random([6; 32]));
        let now = 1_700_000_123;
        assert_eq!(keys.id_at(now), keys.id_at(now / 600 * 600));
        assert_ne!(keys.id_at(now), keys.id_at(now + 600));
        assert_ne!(keys.id_at(now), other.id_at(now));
        for skew in [0, 35, 477, 600] {
            assert!(keys.ids_around(now).contains(&keys.id_at(now + skew)));
            assert!(keys.ids_around(now).contains(&keys.id_at(now - skew)));
        }
        assert_eq!(keys.ids_around(0)[0], keys.id_at(0));
        assert_eq!(format!("{keys:?}"), "PskKeys(hidden)");
    }
}
