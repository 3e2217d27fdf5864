//! The public server.

pub mod api;
pub mod backend;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod registry;
