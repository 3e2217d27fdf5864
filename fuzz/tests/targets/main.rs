//! The fuzz targets: one module for each crate whose parsers they feed.

mod config;
mod http;
mod link;
mod text;
mod wire;
