//! What a QUIC door makes its connection ids and reset tokens with.

use std::net::{IpAddr, SocketAddr};

use adit_model::Identity;
use aws_lc_rs::hmac;

use crate::keys::{expand, extract};

const SALT: &[u8] = b"adit/1 edge";
const IDS: &str = "adit/1 quic ids";
const RESETS: &str = "adit/1 quic resets";

/// The keys of one QUIC door: those of every process that opens it for an edge,
/// so that a new one knows what an earlier one has made.
///
/// Two doors never share them, not even of one edge: a door that does not have
/// a connection tells its reset token (RFC 9000 §10.3.2), and the other one
/// might have it.
#[derive(Debug)]
pub struct QuicDoorKeys {
    /// MACs connection ids.
    pub ids: hmac::Key,
    /// Makes the reset token of an id.
    pub resets: hmac::Key,
}

impl QuicDoorKeys {
    /// The keys of the door that `edge` has bound at `door`.
    #[must_use]
    pub fn new(edge: &Identity, door: SocketAddr) -> Self {
        let prk = extract(SALT, &[edge.expose_seed()]);
        let ip = match door.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let (ip, port) = (ip.octets(), door.port().to_be_bytes());
        let key = |label| {
            let key = expand(&prk, label, &[&ip, &port]);
            hmac::Key::new(hmac::HMAC_SHA256, key.as_slice())
        };
        Self {
            ids: key(IDS),
            resets: key(RESETS),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn signed(keys: &QuicDoorKeys) -> [Vec<u8>; 2] {
        [&keys.ids, &keys.resets].map(|key| hmac::sign(key, b"id").as_ref().to_vec())
    }

    #[test]
    fn each_door_of_each_edge_has_keys_that_stay() {
        let mut all = HashSet::new();
        for seed in [1, 2] {
            let edge = Identity::from_seed([seed; 32]).unwrap();
            for door in ["0.0.0.0:7", "0.0.0.0:8", "192.0.2.1:7", "[::]:7"] {
                let keys = QuicDoorKeys::new(&edge, door.parse().unwrap());
                let again = QuicDoorKeys::new(&edge, door.parse().unwrap());
                assert_eq!(signed(&keys), signed(&again), "{door}");
                all.extend(signed(&keys));
            }
        }
        assert_eq!(all.len(), 2 * 4 * 2);
    }

    #[test]
    fn its_keys_are_hkdf_as_it_is_written() {
        let edge = Identity::from_seed([7; 32]).unwrap();
        let keys = QuicDoorKeys::new(&edge, "192.0.2.1:7000".parse().unwrap());
        let sign = |key: &[u8], data: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
                .as_ref()
                .to_vec()
        };
        let prk = sign(b"adit/1 edge", &[7; 32]);
        let context = [&[0; 10][..], &[255, 255, 192, 0, 2, 1], &[0x1b, 0x58]].concat();
        let mut wanted = ["adit/1 quic ids", "adit/1 quic resets"].map(|label| {
            let info = [label.as_bytes(), &[0], &context, &[1]].concat();
            sign(&sign(&prk, &info), b"id")
        });
        assert_eq!(signed(&keys), wanted);
        wanted.reverse();
        assert_ne!(signed(&keys), wanted);
    }
}
