//! The public server.

pub mod api;
pub mod config;
pub mod limits;
pub mod metrics;
