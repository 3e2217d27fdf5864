//! Frames and message bodies of the link protocol, version 1.
//!
//! A frame on the wire is `len u32 BE | ciphertext`; its plaintext is
//! `type u8 | flags u8 | stream_id u32 BE | payload`. Sealing is the business
//! of the link state machines; this crate knows the layout, the kinds and the
//! bodies. A body is a row of fields `tag u8 | length u16 BE | bytes`: a
//! later version adds fields and this one skips them.
//!
//! Invariants: every decode is total (any bytes give a value or an error,
//! never a panic) and bounded (nothing is allocated beyond the input's own
//! length); what decodes encodes again; texts hold no control characters, so
//! that none of them can steer a terminal or forge a log line.

mod admission;
mod channel;
mod compression;
mod field;
mod frame;
mod message;
mod stats;
mod trunk;

pub use admission::{AuthOk, FINISHED_FIELD, Hello, Verdict};
pub use channel::{DataConnReady, Delivered, Forward, Reset, ResetReason, Start};
pub use compression::{Compression, NoCompression};
pub use field::{DecodeError, EncodeError, MAX_TEXT};
pub use frame::{
    FLAG_LZ4, FRAME_OVERHEAD, FrameKind, HEAD, Header, INNER, LENGTH, MAX_FRAME, MAX_PAYLOAD, TAG,
};
pub use message::{
    Drain, Heartbeat, MAX_ADDRESSES, Message, OpenTunnel, TunnelKind, TunnelState, TunnelStatus,
};
pub use stats::{Counters, MAX_STAT_TUNNELS, Stats, TunnelCounters};
pub use trunk::{BadPiece, CREDIT_UNIT, LINE_WINDOW, Part, Piece, PieceKind, Pieces, TRUNK_HEAD};
