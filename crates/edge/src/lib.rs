//! The public server.

pub mod admission;
pub mod api;
pub mod backend;
pub mod config;
mod keep;
pub mod limits;
pub mod link;
pub mod listen;
pub mod metrics;
pub mod random;
pub mod registry;
pub mod state;
mod tunnels;
