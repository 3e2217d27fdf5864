//! The public server.

pub mod api;
pub mod limits;
pub mod metrics;
