//! HTTP/1.1 as an intermediary must speak it: parse, judge, write anew.
//!
//! Purpose: one grammar for heads ([`RequestHead`], [`ResponseHead`]), one
//! state machine for message bodies ([`Body`]), and writers that serialise a
//! head from its parsed parts, so that no byte of a stranger's framing ever
//! reaches the other side.
//!
//! Invariants:
//! - **Refuse, never repair.** A message that two implementations could read
//!   differently (RFC 9112 §11.2) is an error here, even where the RFC allows
//!   a recipient to mend it.
//! - Every function is total: any bytes give a value or an error, in time
//!   linear in their number, whatever the pieces they arrive in.
//! - Nothing is allocated for a message once the reusable parts have grown.
//! - A field that speaks about the connection, the client's address or the
//!   framing never passes through; it is written from what was parsed.
//!
//! Absent on purpose: sockets, clocks, buffers, HTTP/2, and any knowledge of
//! routes.
#![forbid(unsafe_code)]

mod body;
mod chunk;
#[cfg(any(test, feature = "corpus"))]
pub mod corpus;
mod error;
mod fields;
mod forward;
mod host;
mod name;
mod request;
mod response;
mod rewrite;
mod scan;
mod target;
mod write;

pub use body::{Body, Framing, Step};
pub use chunk::{CHUNK_END, LAST_CHUNK, write_chunk_head};
pub use error::{BadResponse, BodyError, Refusal};
pub use fields::{Field, Span, Trailers};
pub use forward::{Client, Forwarding, client_address};
pub use host::{Authority, AuthorityCache};
pub use name::Name;
pub use request::{Limits, Method, Request, RequestHead, Target, Upgrade, Version};
pub use response::{Response, ResponseHead};
pub use rewrite::{Origin, Rewrite};
pub use write::{Outcome, ResponseOptions, write_request, write_response, write_trailers};
