//! The link protocol, version 1, without IO.
//!
//! Everything that an agent and an edge must agree on is here: the first
//! message, the handshake, the keys, sealing, the control channel's state
//! machine, and the edge's books (seen proofs, channel numbers, PIN attempts,
//! leases). `docs/protocol.md` holds every byte of it.
//!
//! Nothing here reads a clock, a socket, the environment or a random source:
//! bytes received, the time, random bytes and ephemeral keys come in as
//! arguments, so that a seed reproduces a run byte by byte.
//!
//! Invariants:
//! - No public-key operation happens for a peer that has not proved a
//!   pre-shared secret ([`First::prove_link`] comes first and costs one MAC).
//! - A plaintext is handed out only after its tag was checked, and a direction
//!   that failed once never opens or seals again.
//! - No (key, nonce) pair seals two frames: one counter a direction, which is
//!   never set back, under keys that no other direction shares.
//! - Memory is bounded whatever the peer sends.

mod clock;
mod control;
mod datagram;
mod first;
mod handshake;
mod keys;
mod knock;
mod lease;
mod pack;
mod peer;
mod pin;
mod quic_door;
mod replay;
mod seal;
mod session;
mod stage;
mod transcript;
#[cfg(test)]
mod vectors;
mod window;

pub use clock::{ClockChange, WallClock};
pub use control::{Control, ControlError, ControlEvent, MAX_QUEUED, REKEY_EVERY, Timing};
pub use datagram::{DATAGRAM_HEAD, DATAGRAM_OVERHEAD, DatagramFlow, DatagramKeys, datagram_index};
pub use first::{FIRST_LEN, First, ProvedChannel, ProvedLink, Purpose, SecretId};
pub use handshake::{
    AgentEvent, AgentFresh, AgentHandshake, EdgeEvent, EdgeFresh, EdgeHandshake, HandshakeError,
    PinProof, Session,
};
pub use keys::{ID_EPOCH, KeyError, PskKeys};
pub use knock::{KNOCK_LEN, Knock, QuicStart, SeenKnocks};
pub use lease::{Claim, ClaimRefused, Holder, LeaseLimits, Leases, Owner};
pub use pack::{BadBlock, PLAIN_LENGTH, Packer, Scratch, plain_len, unpack};
pub use peer::{
    PEER_FIRST_LEN, PEER_STREAM, PeerError, PeerEvent, PeerForwarder, PeerFresh, PeerSession,
    PeerTarget,
};
pub use pin::{PinGate, PinLimits, PinOutcome, PinPermit};
pub use quic_door::QuicDoorKeys;
pub use replay::{REPLAY_WINDOW, ReplayCache, ReplayError, Seen};
pub use seal::{OpenError, Opened, Opener, RATCHET_PERIOD, SealError, Sealer, Suite, Suites};
pub use session::{EPOCH_GRACE, Role, SessionKeys, TrunkKeys};
pub use stage::ANSWER_LEN;
pub use window::{NumberWindow, WINDOW};
