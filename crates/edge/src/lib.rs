//! The public server.

pub mod admission;
pub mod api;
pub mod limits;
pub mod metrics;
pub mod random;
pub mod state;
