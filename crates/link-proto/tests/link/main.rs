//! Both sides of a link, joined by hand, and what may happen between them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod control;
mod handshake;
mod sealing;
mod support;
