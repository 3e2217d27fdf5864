//! How a QUIC door tells agents from strangers before it answers.
//!
//! The client of a QUIC connection chooses the first destination connection id
//! (RFC 9000 §7.2): 20 bytes, which an agent makes
//!
//! ```text
//! id of the secret 8 | nonce 4 | first 8 bytes of
//!     HMAC(first_key, "adit quic knock" ‖ id ‖ nonce ‖ edge key)
//! ```
//!
//! To whoever cannot make one the door is silent. A knock can be heard and
//! repeated while its id lives (at most 30 minutes); what it opens is a QUIC
//! handshake that names nothing, and the link's own inside it.

use adit_model::PublicKey;

use crate::first::SecretId;
use crate::keys::{PskKeys, mac_with, same};

/// Bytes of a knock: the longest connection id that QUIC has.
pub const KNOCK_LEN: usize = 20;
const COVERED: usize = 12;
const LABEL: &[u8] = b"adit quic knock";

/// A connection id that may prove a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knock([u8; KNOCK_LEN]);

impl Knock {
    /// Takes the bytes; all of them are something.
    #[must_use]
    pub fn parse(bytes: &[u8; KNOCK_LEN]) -> Self {
        Self(*bytes)
    }

    /// The knock of a holder of `keys` at `edge`, at a unix time; `nonce` is
    /// random, so that two agents with one secret differ.
    #[must_use]
    pub fn make(keys: &PskKeys, edge: &PublicKey, unix: u64, nonce: [u8; 4]) -> Self {
        let mut bytes = [0; KNOCK_LEN];
        bytes[..8].copy_from_slice(&keys.id_at(unix).0);
        bytes[8..COVERED].copy_from_slice(&nonce);
        let mac = mac_with(keys.first_key(), &[LABEL, &bytes[..COVERED], &edge.0]);
        bytes[COVERED..].copy_from_slice(&mac[..KNOCK_LEN - COVERED]);
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; KNOCK_LEN] {
        &self.0
    }

    /// Which secret it names.
    #[must_use]
    pub fn id(&self) -> SecretId {
        let mut id = [0; 8];
        id.copy_from_slice(&self.0[..8]);
        SecretId(id)
    }

    /// Whether a holder of `keys` made it for `edge`.
    #[must_use]
    pub fn fits(&self, keys: &PskKeys, edge: &PublicKey) -> bool {
        let mac = mac_with(keys.first_key(), &[LABEL, &self.0[..COVERED], &edge.0]);
        same(&mac[..KNOCK_LEN - COVERED], &self.0[COVERED..])
    }
}

#[cfg(test)]
mod tests {
    use adit_model::Psk;

    use super::*;

    #[test]
    fn only_a_holder_knocks() {
        let keys = PskKeys::new(&Psk::from_random([1; 32]));
        let edge = PublicKey([7; 32]);
        let knock = Knock::make(&keys, &edge, 1_000_000, [1, 2, 3, 4]);
        assert!(knock.fits(&keys, &edge));
        assert_eq!(knock.id(), keys.id_at(1_000_000));
        assert!(!knock.fits(&keys, &PublicKey([8; 32])), "another edge");
        assert!(!knock.fits(&PskKeys::new(&Psk::from_random([2; 32])), &edge));
        for bit in 0..KNOCK_LEN * 8 {
            let mut bytes = *knock.bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!Knock::parse(&bytes).fits(&keys, &edge), "bit {bit}");
        }
    }
}
