//! The public server.

pub mod admission;
pub mod api;
mod assemble;
mod auth;
pub mod backend;
pub mod config;
pub mod control;
pub mod http;
mod keep;
pub mod limits;
pub mod link;
pub mod listen;
pub mod metrics;
pub mod registry;
pub mod serve;
pub mod state;
mod status;
mod sync_stats;
mod tunnels;

pub use serve::{Edge, Facts, StartError};
