//! The public server.

pub mod config;
