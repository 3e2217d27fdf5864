//! A world in which links are tried without sockets and without waiting.
//!
//! One edge and a few agents run the real state machines of `adit-link-proto`
//! on simulated hosts: their clocks jump when the script says so, and the
//! network between them delays, cuts, swallows, alters, repeats and replays.
//! A reference model follows every lease and every channel, and after each
//! step the world checks that the books agree with it. One seed decides
//! everything; a failure prints it.
//!
//! Invariants checked after each step (see [`World::check`]):
//! - the edge's leases are those of the model, which derives them anew from
//!   the history of claims and releases;
//! - a name's holders have one owner, an exclusive one is alone, no process
//!   holds a name twice, and each holder's link is live;
//! - a channel number is used once in a session, a first message once ever;
//! - an attacker who replays or alters bytes never gets a byte back;
//! - a visitor's answer is its own, from an agent that held the name.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "a broken invariant ends the run"
)]

mod agent;
mod channel;
mod clock;
mod edge;
mod model;
mod net;
mod rng;
mod world;

pub use agent::Agent;
pub use clock::HostClock;
pub use edge::{Edge, Outcome};
pub use model::LeaseModel;
pub use net::{Conn, Mangle, Net, Side};
pub use rng::Rng;
pub use world::{Fault, World};
