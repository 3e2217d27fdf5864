//! The one place where this crate draws random bytes.

use std::io;

pub(crate) use adit_link::entropy::random as bytes;
use adit_link_proto::PeerFresh;

/// For one handshake with another agent.
pub(crate) fn peer() -> io::Result<PeerFresh> {
    Ok(PeerFresh {
        ephemeral: bytes()?,
        nonce: bytes()?,
    })
}
