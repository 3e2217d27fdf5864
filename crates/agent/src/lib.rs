//! The agent: dials an edge, keeps a link to it and serves the link's streams
//! from local targets.

pub mod config;
