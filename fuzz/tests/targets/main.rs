//! The fuzz targets: one module for each crate whose parsers they feed.

mod text;
mod wire;
