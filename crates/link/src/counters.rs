//! What the driver counts; the owner of the links renders it.

use std::sync::atomic::AtomicU64;

/// Counters of all links of one process side.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames that did not open: altered, replayed or out of order.
    pub bad_frames: AtomicU64,
    /// Bytes read from data channels, as they are on the wire.
    pub bytes_in: AtomicU64,
    /// Bytes written to data channels, as they are on the wire.
    pub bytes_out: AtomicU64,
    /// Bytes of streams in the compressed frames that came.
    pub unpacked_in: AtomicU64,
    /// What they were on the wire, without head and tag.
    pub packed_in: AtomicU64,
    /// Bytes of streams in the compressed frames that went.
    pub unpacked_out: AtomicU64,
    /// What they were on the wire, without head and tag.
    pub packed_out: AtomicU64,
    /// Datagrams that were sent beside their streams, as the carrier's own.
    pub datagrams_beside: AtomicU64,
    /// Datagrams of a carrier that no flow took in time.
    pub datagrams_dropped: AtomicU64,
    /// Datagrams of strangers, dropped at a QUIC door.
    pub strangers_dropped: AtomicU64,
    /// Knocks that were used before, or too many to be remembered.
    pub knocks_refused: AtomicU64,
    /// Streams whose readers had paused and filled their QUIC link.
    pub paused_cut: AtomicU64,
    /// Data channels that were set up.
    pub channels_opened: AtomicU64,
    /// Lines that were opened on trunks.
    pub lines_opened: AtomicU64,
    /// Streams that began on a channel.
    pub streams_opened: AtomicU64,
    /// Streams that began on a channel that had carried another one.
    pub streams_recycled: AtomicU64,
    /// Streams for which no idle channel was there.
    pub pool_misses: AtomicU64,
}
