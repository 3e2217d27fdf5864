//! Which route a host and a path lead to.
//!
//! Purpose: an immutable [`RouteTable`], built whole when the configuration is
//! read and swapped in at once; a lookup costs one hash of the host and one
//! per path segment, whatever the number of routes.
//!
//! Invariants:
//! - The longest path prefix wins, and a prefix ends at a segment: `/api`
//!   leads to `/api` and `/api/x`, never to `/apix`.
//! - A path is matched in one normal form ([`normal_path`]), so that no other
//!   spelling of a path reaches a less guarded route.
//! - A name one label below the domain leads to the tunnel of that label
//!   wherever no route of its own matches.
//!
//! Absent on purpose: live tunnels (they come and go without a new table),
//! pools, access rules.
#![forbid(unsafe_code)]

mod path;
mod table;

pub use path::{PathError, PathPrefix, normal_path};
pub use table::{
    Found, Redirect, Route, RouteOptions, RouteTable, TableError, Target, Upgrades, Upstream,
    UpstreamError,
};
