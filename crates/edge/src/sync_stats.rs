//! `/_sys/sync_stats`: the edge's statistics for a holder of the shared secret.
//!
//! The only system path on a public door. A request is answered when it is a
//! `GET` without query and body whose three headers prove the shared secret:
//!
//! ```text
//! X-Adit-Timestamp  unix seconds, within 35 s
//! X-Adit-Nonce      32 hexadecimal digits, used once
//! X-Adit-Signature  hex HMAC-SHA256 under HKDF-SHA256(secret, no salt,
//!                   "adit/1 request signing", 32) over
//!                   METHOD \n PATH \n hex SHA-256(body) \n TIMESTAMP \n NONCE
//! ```
//!
//! The answer is JSON sealed as a Fernet token under
//! `base64url(HKDF-SHA256(secret, no salt, "adit/1 stats sealing", 32))`.
//!
//! The door has seen to it that there is neither query nor body, and that each
//! header stands there once.
//!
//! Invariant: a request with any mistake gets nothing from here, as if the path
//! were not ours; nothing is remembered of a request that proves nothing.

mod fernet;

use std::fmt;
use std::sync::Arc;

use adit_link::entropy::random;
use adit_model::Psk;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use crate::admission::Admission;
use crate::control::Status;
use crate::http::{self, StatsRequest};
use crate::metrics::Metrics;

/// The path.
pub const PATH: &str = "/_sys/sync_stats";
const METHOD: &[u8] = b"GET";
const SIGNING: &[u8] = b"adit/1 request signing";
const SEALING: &[u8] = b"adit/1 stats sealing";

/// A request that proves the shared secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proved {
    stamp: u64,
    nonce: [u8; 16],
}

/// Answers signed requests.
pub struct SyncStats {
    admission: Arc<Admission>,
    status: Arc<dyn Status>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for SyncStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SyncStats")
    }
}

impl SyncStats {
    /// Answers for one edge: what its owner is told of links and tunnels, and
    /// the sums of its counters.
    #[must_use]
    pub fn new(admission: Arc<Admission>, status: Arc<dyn Status>, metrics: Arc<Metrics>) -> Self {
        Self {
            admission,
            status,
            metrics,
        }
    }

    fn statistics(&self) -> serde_json::Value {
        let mut all = self.status.status();
        if let Some(all) = all.as_object_mut() {
            all.insert("totals".to_owned(), self.metrics.totals());
        }
        all
    }
}

impl http::SyncStats for SyncStats {
    fn answer(&self, request: &StatsRequest<'_>) -> Option<Vec<u8>> {
        let secret = self.admission.store().shared_secret();
        let proved = prove(request, &secret)?;
        self.admission.use_request(proved.nonce, proved.stamp)?;
        let plain = self.statistics().to_string();
        let key = derive(&secret, SEALING)?;
        let iv = random().ok()?;
        let unix = self.admission.unix_now();
        let token = fernet::seal(&key, unix, iv, plain.as_bytes()).ok()?;
        Some(token.into_bytes())
    }
}

/// Checks form and signature; time and single use are the caller's.
fn prove(request: &StatsRequest<'_>, secret: &Psk) -> Option<Proved> {
    if request.method != METHOD || request.path != PATH.as_bytes() {
        return None;
    }
    let is_number = (1..=20).contains(&request.timestamp.len())
        && request.timestamp.iter().all(u8::is_ascii_digit);
    let stamp = std::str::from_utf8(request.timestamp).ok()?;
    let stamp = if is_number {
        stamp.parse().ok()?
    } else {
        return None;
    };
    let nonce = hex::<16>(request.nonce)?;
    let signature = hex::<32>(request.signature)?;
    let body = HEXLOWER.encode(digest(&SHA256, b"").as_ref());
    let signed = [
        request.method,
        request.path,
        body.as_bytes(),
        request.timestamp,
        request.nonce,
    ]
    .join(&b'\n');
    let key = derive(secret, SIGNING)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_slice());
    hmac::verify(&key, &signed, &signature).ok()?;
    Some(Proved { stamp, nonce })
}

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text).ok()?;
    bytes.try_into().ok()
}

struct Length32;

impl KeyType for Length32 {
    fn len(&self) -> usize {
        32
    }
}

/// HKDF-SHA256 without salt (RFC 5869), 32 bytes.
fn derive(secret: &Psk, info: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let prk = Salt::new(HKDF_SHA256, &[]).extract(secret.bytes());
    let mut key = Zeroizing::new([0; 32]);
    let info = [info];
    prk.expand(&info, Length32)
        .and_then(|okm| okm.fill(key.as_mut_slice()))
        .ok()?;
    Some(key)
}

#[cfg(test)]
mod tests;
