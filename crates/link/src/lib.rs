//! The one tokio driver of the link protocol.
//!
//! `link-proto` decides, this crate carries: sockets, timers, tasks. A link is
//! one control channel, run by [`control`], and any number of data channels,
//! each a connection of its own or a line of a trunk, that carries one visitor
//! stream after another. [`Stream`] is what every door of the edge and every
//! tunnel of the agent reads and writes.
//!
//! Invariants: nothing is spawned outside [`tasks`]; every queue is bounded;
//! a buffer exists only while bytes flow; a stream that did not end in order
//! never looks as if it had.

pub mod accept;
pub mod agent;
mod buffer;
pub mod carrier;
mod channel;
pub mod control;
mod counters;
mod datagrams;
mod dialer;
pub mod edge;
pub mod entropy;
pub mod eyeballs;
mod forward;
mod inner;
mod lane;
mod lines;
#[cfg(unix)]
pub mod owner;
mod packed;
mod path;
mod peer;
pub mod proxy;
pub mod quic;
pub mod race;
pub mod socket;
mod stream;
mod stream_io;
pub mod tasks;
pub mod tls;
pub mod told;
mod trunk;
mod uses;
pub mod websocket;
pub mod workers;

pub use carrier::{Socket, Wire};
pub use channel::{Channel, IDLE_LIMIT, Incoming, PING_AFTER};
pub use counters::Counters;
pub use datagrams::{Datagrams, FULL, MAX_DATAGRAM};
pub use forward::{Asked, ForwardError, ForwardStream, Forwards, Place};
pub use lane::Lanes;
pub use peer::{Duplex, PeerFailure, PeerStream};
pub use stream::{Fill, Stream, StreamError};
pub use stream_io::StreamIo;
pub use uses::Uses;
