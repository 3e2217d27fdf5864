//! The public server.

pub mod admission;
pub mod api;
pub mod backend;
pub mod config;
pub mod control;
pub mod http;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod passwords;
pub mod registry;
pub mod state;
pub mod sync_stats;
