//! The transcript: a hash chain over everything both sides have seen.

use crate::keys::sha256;

/// `h = SHA-256(label)`, then `h = SHA-256(h ‖ len u32 BE ‖ bytes)` for each
/// entry. The lengths keep entries apart.
#[derive(Clone)]
pub(crate) struct Transcript([u8; 32]);

impl Transcript {
    pub(crate) fn link() -> Self {
        Self(sha256(&[b"adit/1 link transcript"]))
    }

    /// Of two agents, inside a private tunnel.
    pub(crate) fn peers() -> Self {
        Self(sha256(&[b"adit/1 peer transcript"]))
    }

    /// Adds an entry made of `parts` in a row.
    pub(crate) fn add(&mut self, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|p| p.len()).sum();
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let mut all: Vec<&[u8]> = Vec::with_capacity(parts.len() + 2);
        all.extend([&self.0[..], &length[..]]);
        all.extend(parts);
        self.0 = sha256(&all);
    }

    pub(crate) fn hash(&self) -> &[u8; 32] {
        &self.0
    }
}
