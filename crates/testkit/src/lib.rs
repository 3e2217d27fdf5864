//! The test world of real sockets: an edge and agents in one process, programs
//! that are run as peers (nginx, curl, Python, Adit itself), what they said,
//! and what they hold.
//!
//! Invariants: every listener is bound to port 0 of the loopback interface, so
//! that tests run in parallel; nothing waits by the clock but [`wait`]; a
//! process ends with the value that started it; a peer that is not installed
//! fails the test that needs it, by name.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "code for tests alone, where a panic is how a test fails"
)]

pub mod between;
pub mod counters;
pub mod curl;
pub mod datagrams;
pub mod dns;
pub mod network;
pub mod nginx;
pub mod peers;
pub mod postgres;
pub mod process;
pub mod proxies;
pub mod python;
pub mod raw;
pub mod sshd;
pub mod tls;
pub mod wait;
pub mod world;
