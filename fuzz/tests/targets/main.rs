//! The fuzz targets: one module for each crate whose parsers they feed.

#![expect(
    clippy::unwrap_used,
    reason = "code for tests alone, where a panic is how a test fails"
)]

mod config;
mod doors;
mod http;
mod link;
mod quic;
mod text;
mod wire;
