//! Datagrams that may be lost, repeated or overtake each other.
//!
//! A carrier with datagrams of its own gives each flow a place outside its
//! channel's frames:
//!
//! ```text
//! index u32 | counter u64 | ciphertext | tag 16
//! nonce = base (4 bytes) ‖ counter        aad = index ‖ counter
//! ```
//!
//! `index` is the channel's place in its carrier; the upper half of `counter`
//! is the number of the channel's stream, so that no late one is taken for one
//! of the next flow. Each is sealed on its own, and opened at most once.

use adit_wire::TAG;
use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};

use crate::keys::{KeyError, Secret};
use crate::seal::{Suite, prepare};
use crate::window::NumberWindow;

/// Bytes in front of the ciphertext.
pub const DATAGRAM_HEAD: usize = 12;
/// Bytes that sealing adds to a datagram.
pub const DATAGRAM_OVERHEAD: usize = DATAGRAM_HEAD + TAG;

struct Way {
    key: LessSafeKey,
    base: [u8; 4],
}

impl Way {
    fn new(suite: Suite, secret: &Secret) -> Result<Self, KeyError> {
        let (key, base) = prepare(suite, secret)?;
        Ok(Self { key, base })
    }

    fn nonce(&self, counter: u64) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..4].copy_from_slice(&self.base);
        nonce[4..].copy_from_slice(&counter.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

/// A channel's keys for datagrams, both ways.
pub struct DatagramKeys {
    ours: Way,
    theirs: Way,
}

impl DatagramKeys {
    pub(crate) fn new(suite: Suite, ours: &Secret, theirs: &Secret) -> Result<Self, KeyError> {
        Ok(Self {
            ours: Way::new(suite, ours)?,
            theirs: Way::new(suite, theirs)?,
        })
    }
}

impl std::fmt::Debug for DatagramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatagramKeys")
    }
}

/// The datagrams of one flow, one stream of a channel.
#[derive(Debug)]
pub struct DatagramFlow {
    index: u32,
    stream: u32,
    next: u32,
    seen: NumberWindow,
}

impl DatagramFlow {
    /// The flow that is stream number `stream` of the channel at `index`.
    #[must_use]
    pub fn new(index: u32, stream: u32) -> Self {
        Self {
            index,
            stream,
            next: 0,
            seen: NumberWindow::default(),
        }
    }

    /// Seals a datagram; `None` when the flow has had 2^32 of them, or the
    /// cipher fails.
    pub fn seal(&mut self, keys: &DatagramKeys, plain: &[u8]) -> Option<Vec<u8>> {
        let after = self.next.checked_add(1)?;
        let counter = u64::from(self.stream) << 32 | u64::from(self.next);
        self.next = after;
        let mut out = Vec::with_capacity(plain.len() + DATAGRAM_OVERHEAD);
        out.extend_from_slice(&self.index.to_be_bytes());
        out.extend_from_slice(&counter.to_be_bytes());
        out.extend_from_slice(plain);
        let (head, body) = out.split_at_mut(DATAGRAM_HEAD);
        let aad = Aad::from(&*head);
        let nonce = keys.ours.nonce(counter);
        let tag = keys.ours.key.seal_in_place_separate_tag(nonce, aad, body);
        out.extend_from_slice(tag.ok()?.as_ref());
        Some(out)
    }

    /// Opens a datagram into `plain`, which is overwritten. False, and what is
    /// in `plain` means nothing: altered, repeated, or of another flow.
    pub fn open(&mut self, keys: &DatagramKeys, sealed: &[u8], plain: &mut Vec<u8>) -> bool {
        plain.clear();
        let Some((head, body)) = sealed.split_first_chunk::<DATAGRAM_HEAD>() else {
            return false;
        };
        let [a, b, c, d, rest @ ..] = *head;
        let counter = u64::from_be_bytes(rest);
        if u32::from_be_bytes([a, b, c, d]) != self.index
            || counter >> 32 != u64::from(self.stream)
            || body.len() < TAG
        {
            return false;
        }
        plain.extend_from_slice(body);
        let (nonce, aad) = (keys.theirs.nonce(counter), Aad::from(head));
        let opened = keys.theirs.key.open_in_place(nonce, aad, plain);
        let Ok(length) = opened.map(|opened| opened.len()) else {
            plain.clear();
            return false;
        };
        plain.truncate(length);
        self.seen.burn(counter & u64::from(u32::MAX))
    }
}

/// Where a datagram belongs to: the channel's index.
#[must_use]
pub fn datagram_index(sealed: &[u8]) -> Option<u32> {
    sealed.first_chunk().map(|index| u32::from_be_bytes(*index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (DatagramKeys, DatagramKeys) {
        let (a, b) = (Secret::new([1; 32]), Secret::new([2; 32]));
        let suite = Suite::ChaCha20Poly1305;
        let one = DatagramKeys::new(suite, &a, &b).unwrap();
        (one, DatagramKeys::new(suite, &b, &a).unwrap())
    }

    #[test]
    fn datagrams_come_in_any_order_and_once() {
        let (near, far) = pair();
        let (mut from, mut to) = (DatagramFlow::new(7, 3), DatagramFlow::new(7, 3));
        let sealed: Vec<_> = [&b"one"[..], b"", b"three"]
            .into_iter()
            .map(|plain| from.seal(&near, plain).unwrap())
            .collect();
        assert_eq!(datagram_index(&sealed[0]), Some(7));
        let mut plain = Vec::new();
        for (at, wanted) in [(2, &b"three"[..]), (0, b"one"), (1, b"")] {
            assert!(to.open(&far, &sealed[at], &mut plain));
            assert_eq!(plain, wanted);
            assert!(!to.open(&far, &sealed[at], &mut plain), "a second time");
        }
    }

    #[test]
    fn what_was_altered_or_is_of_another_flow_does_not_open() {
        let (near, far) = pair();
        let sealed = DatagramFlow::new(7, 3).seal(&near, b"hello").unwrap();
        let mut plain = Vec::new();
        for (index, stream) in [(8, 3), (7, 4)] {
            let mut other = DatagramFlow::new(index, stream);
            assert!(!other.open(&far, &sealed, &mut plain));
        }
        let mut to = DatagramFlow::new(7, 3);
        assert!(!to.open(&near, &sealed, &mut plain), "its own direction");
        for bit in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(!to.open(&far, &altered, &mut plain), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(!to.open(&far, &sealed[..length], &mut plain));
        }
        assert!(to.open(&far, &sealed, &mut plain) && plain == b"hello");
    }
}
