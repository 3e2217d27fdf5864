//! The public server: doors for visitors and agents, and what stands behind
//! them.
//!
//! [`Edge::start`] opens everything, [`Edge::stop`] ends it in order. `serve`
//! is the map from door to stage; `assemble` turns a configuration into parts
//! that know nothing of it.
//!
//! Invariants: the data path asks neither the disk nor a lock that is held
//! over an await; before a proof of a secret the link door sends nothing; what
//! a visitor is told by the HTTP door itself names nothing of this product.

pub mod access;
pub mod admission;
pub mod announced;
pub mod api;
mod assemble;
pub mod auth;
pub mod backend;
mod bound;
mod carry;
pub mod config;
pub mod control;
pub mod http;
mod https;
mod keep;
pub mod limits;
pub mod lines;
pub mod link;
pub mod listen;
pub mod metrics;
mod ports;
mod private;
mod quic;
mod reached;
pub mod registry;
mod relay;
pub mod rules;
pub mod seldom;
pub mod serve;
pub mod sni;
mod splice;
pub mod state;
mod status;
pub mod sync_stats;
mod tcp;
pub mod tls;
mod traffic;
pub mod transport;
mod tunnels;
mod udp;
mod visitor;
mod ways;
mod websocket;

pub use reached::Reached;
pub use serve::{Edge, Facts, StartError};
