//! What is counted of links.

use super::kinds::{Counter, Family, Gauge};
use super::labels::{AdmissionOutcome, Direction, ProofFailure};
use super::page::Page;

/// Links, tunnels and channels.
#[derive(Debug, Default)]
pub struct LinkMetrics {
    /// Links live now.
    pub links: Gauge,
    /// Links that were live ever.
    pub opened: Counter,
    /// Tunnels live now.
    pub tunnels: Gauge,
    /// Data channels waiting for a visitor.
    pub channels_idle: Gauge,
    /// Data channels that carry a visitor.
    pub channels_busy: Gauge,
    /// Data channels opened.
    pub channels_opened: Counter,
    /// Lines opened on trunks.
    pub lines_opened: Counter,
    /// Visitor streams that went over a channel used before.
    pub recycled: Counter,
    /// Visitor streams started.
    pub streams: Counter,
    /// Frames that did not open or stood out of turn: altered, replayed, late.
    pub frames_refused: Counter,
    /// Links ended because the other side fell silent.
    pub dead: Counter,
    /// Link sockets that have not proved a secret yet.
    pub unproved: Gauge,
    /// Of these, pushed out by newer ones.
    pub unproved_dropped: Counter,
    /// First messages and channel headers that got silence.
    pub proof_failures: Family<ProofFailure>,
    /// Admissions by their end.
    pub admissions: Family<AdmissionOutcome>,
    /// Bytes of data channels.
    pub bytes: Family<Direction>,
    /// Bytes of streams that went in compressed frames.
    pub unpacked: Family<Direction>,
    /// What they were in these frames.
    pub packed: Family<Direction>,
    /// Datagrams that went as the carrier's own.
    pub datagrams_beside: Counter,
    /// Those of a carrier that no flow took in time.
    pub datagrams_dropped: Counter,
    /// Datagrams of strangers at the QUIC door.
    pub strangers_dropped: Counter,
    /// Knocks at the QUIC door that opened nothing.
    pub knocks_refused: Counter,
    /// Streams of paused readers that were cut.
    pub paused_cut: Counter,
}

impl LinkMetrics {
    pub(super) fn render(&self, page: &mut Page) {
        page.gauge("adit_links_open", "Agents' links live now.", &self.links);
        page.counter("adit_links_total", "Links that were live.", &self.opened);
        page.gauge("adit_tunnels_open", "Tunnels live now.", &self.tunnels);
        let help = "Data channels that wait for a visitor.";
        page.gauge("adit_channels_idle", help, &self.channels_idle);
        let help = "Data channels that carry a visitor.";
        page.gauge("adit_channels_busy", help, &self.channels_busy);
        let help = "Data channels opened.";
        page.counter("adit_channels_total", help, &self.channels_opened);
        let help = "Lines opened on trunks.";
        page.counter("adit_lines_total", help, &self.lines_opened);
        let help = "Visitor streams over a channel used before.";
        page.counter("adit_channels_recycled_total", help, &self.recycled);
        let help = "Visitor streams started.";
        page.counter("adit_streams_total", help, &self.streams);
        let help = "Frames that did not open or stood out of turn.";
        page.counter("adit_link_frames_refused_total", help, &self.frames_refused);
        let help = "Links ended because the agent fell silent.";
        page.counter("adit_links_dead_total", help, &self.dead);
        let help = "Bytes of data channels.";
        page.family("adit_link_bytes_total", help, &self.bytes);
        let help = "Bytes of streams that went in compressed frames.";
        page.family("adit_link_unpacked_bytes_total", help, &self.unpacked);
        let help = "What they were in these frames.";
        page.family("adit_link_packed_bytes_total", help, &self.packed);
        let help = "Datagrams sent as QUIC datagrams.";
        page.counter("adit_link_datagrams_total", help, &self.datagrams_beside);
        let help = "QUIC datagrams that no flow took in time.";
        page.counter(
            "adit_link_datagrams_dropped_total",
            help,
            &self.datagrams_dropped,
        );
        let help = "Streams cut whose readers had paused and filled a QUIC link.";
        page.counter("adit_quic_paused_cut_total", help, &self.paused_cut);
    }

    pub(super) fn render_admission(&self, page: &mut Page) {
        let help = "Link sockets that have not proved a secret yet.";
        page.gauge("adit_link_unproved_open", help, &self.unproved);
        let help = "Unproved link sockets pushed out by newer ones.";
        let name = "adit_link_unproved_dropped_total";
        page.counter(name, help, &self.unproved_dropped);
        let help = "First messages and channel headers answered by silence.";
        let name = "adit_link_proof_failures_total";
        page.family(name, help, &self.proof_failures);
        let help = "Datagrams of strangers dropped at the QUIC door.";
        page.counter("adit_quic_strangers_total", help, &self.strangers_dropped);
        let help = "Knocks at the QUIC door that were used before, or too many.";
        let name = "adit_quic_knocks_refused_total";
        page.counter(name, help, &self.knocks_refused);
        let help = "Admissions by their end.";
        page.family("adit_admissions_total", help, &self.admissions);
    }
}
