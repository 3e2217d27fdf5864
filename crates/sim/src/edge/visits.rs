//! Data channels and the visitors on them.

use std::time::Instant;

use adit_link_proto::{Holder, ProvedChannel, Role};
use adit_model::{ConnId, LinkId, PublicKey, TunnelId, TunnelName};
use adit_wire::{FrameKind, Message, Start};

use super::{Edge, IDLE_LIMIT, Outcome, PING_AFTER, Peer, VISIT_TIME};
use crate::channel::{Frame, Sealed};
use crate::net::{Conn, Net, Side};

pub(super) struct Channel {
    pub(super) link: LinkId,
    pub(super) sealed: Sealed,
    pub(super) stream: u32,
    pub(super) visit: Option<Visit>,
    pub(super) fin: bool,
    pub(super) heard: Instant,
    pub(super) pinged: bool,
}

impl Channel {
    /// When it is to be pinged or given up while it is idle, or its visit is
    /// to be given up.
    pub(super) fn due(&self) -> Instant {
        match &self.visit {
            Some(visit) => visit.until,
            None if self.pinged => self.heard + IDLE_LIMIT,
            None => self.heard + PING_AFTER,
        }
    }
}

pub(super) struct Visit {
    pub(super) number: u64,
    pub(super) words: [u8; 16],
    pub(super) answer: Vec<u8>,
    pub(super) until: Instant,
}

impl Edge {
    pub(super) fn ping(&mut self, conn: Conn, now: Instant, net: &mut Net) {
        if let Some(Peer::Channel(channel)) = self.peers.get_mut(&conn)
            && channel.due() <= now
        {
            channel.pinged = true;
            let mut out = Vec::new();
            channel.sealed.seal(FrameKind::PING, 0, &[], &mut out);
            net.send(conn, Side::Edge, &out, now);
        }
    }

    pub(super) fn add_channel(
        &mut self,
        conn: Conn,
        id: LinkId,
        proved: &ProvedChannel,
        now: Instant,
        net: &mut Net,
    ) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if !link.keys.burn(proved.number) {
            return;
        }
        assert!(
            link.used.insert(proved.number),
            "a channel number worked twice"
        );
        let random = self.rng.bytes();
        let Ok(pair) = link.keys.channel(proved, random, Role::Edge) else {
            return;
        };
        self.spoken_to.insert(conn);
        net.send(conn, Side::Edge, &random, now);
        let channel = Channel {
            link: id,
            sealed: Sealed::new(pair),
            stream: 0,
            visit: None,
            fin: false,
            heard: now,
            pinged: false,
        };
        self.peers.insert(conn, Peer::Channel(Box::new(channel)));
        if let Some(at) = self.waiting.iter().position(|(link, ..)| *link == id) {
            let (_, tunnel, visit) = self.waiting.remove(at);
            self.begin(conn, tunnel, visit, now, net);
        }
    }

    /// A visitor comes for a name.
    pub(crate) fn visit(&mut self, number: u64, name: &TunnelName, now: Instant, net: &mut Net) {
        self.visits.insert(number, None);
        let holders: Vec<Holder> = self.leases.holders(name).map(|(h, _)| h).collect();
        if holders.is_empty() {
            self.visits.insert(number, Some(Outcome::Failed));
            return;
        }
        let id = holders[self.rng.index(holders.len())].link;
        let link = self.links.get_mut(&id).expect("a holder's link is live");
        let tunnel = link.tunnels.iter().find(|(_, held)| *held == name);
        let tunnel = *tunnel.expect("a holder has the tunnel").0;
        let visit = Visit {
            number,
            words: self.rng.bytes(),
            answer: Vec::new(),
            until: now + VISIT_TIME,
        };
        let idle = self.peers.iter().find(
            |(_, peer)| matches!(peer, Peer::Channel(c) if c.link == id && c.visit.is_none()),
        );
        if let Some(conn) = idle.map(|(conn, _)| *conn) {
            return self.begin(conn, tunnel, visit, now, net);
        }
        let wanted = Message::IncomingConn {
            tunnel,
            conn: ConnId(number),
        };
        let sent = link.control.send(&wanted);
        sent.expect("there is room for a visitor");
        self.waiting.push((id, tunnel, visit));
        self.drive(id, now, net);
    }

    pub(super) fn begin(
        &mut self,
        conn: Conn,
        tunnel: TunnelId,
        visit: Visit,
        now: Instant,
        net: &mut Net,
    ) {
        let Some(Peer::Channel(channel)) = self.peers.get_mut(&conn) else {
            return;
        };
        channel.stream += 1;
        channel.fin = false;
        let start = Start {
            tunnel,
            conn: ConnId(visit.number),
            visitor: ([192, 0, 2, 1], 40_000).into(),
            patience_ms: Start::PATIENCE_MS,
            door: None,
            idle_ms: None,
            forwarder: None,
        };
        let (mut body, mut out) = (Vec::new(), Vec::new());
        start.encode(&mut body);
        let stream = channel.stream;
        channel
            .sealed
            .seal(FrameKind::START, stream, &body, &mut out);
        channel
            .sealed
            .seal(FrameKind::DATA, stream, &visit.words, &mut out);
        channel.sealed.seal(FrameKind::FIN, stream, &[], &mut out);
        channel.visit = Some(visit);
        net.send(conn, Side::Edge, &out, now);
    }

    pub(super) fn on_channel(&mut self, conn: Conn, bytes: &[u8], now: Instant, net: &mut Net) {
        let Some(Peer::Channel(channel)) = self.peers.get_mut(&conn) else {
            return;
        };
        let Ok(frames) = channel.sealed.open(bytes) else {
            return self.drop_peer(conn, now, net);
        };
        (channel.heard, channel.pinged) = (now, false);
        let holder = self
            .links
            .get(&channel.link)
            .map(|link| link.holder.identity);
        for frame in frames {
            if let Some(outcome) = on_frame(channel, &frame, holder) {
                let mut out = Vec::new();
                channel
                    .sealed
                    .seal(FrameKind::DONE, channel.stream, &[], &mut out);
                net.send(conn, Side::Edge, &out, now);
                self.visits.insert(outcome.0, Some(outcome.1));
            }
        }
    }
}

/// The end of a visit, when this frame is it.
fn on_frame(
    channel: &mut Channel,
    frame: &Frame,
    holder: Option<PublicKey>,
) -> Option<(u64, Outcome)> {
    if matches!(frame.kind, FrameKind::DATA_CONN_READY | FrameKind::PONG) {
        return None;
    }
    assert_eq!(frame.stream, channel.stream, "a frame of another stream");
    match frame.kind {
        FrameKind::ACCEPTED => None,
        FrameKind::DATA => {
            let visit = channel.visit.as_mut().expect("data belongs to a visit");
            visit.answer.extend_from_slice(&frame.payload);
            None
        }
        FrameKind::FIN => {
            channel.fin = true;
            None
        }
        FrameKind::DONE => {
            assert!(channel.fin, "done before the end");
            let visit = channel.visit.take().expect("done belongs to a visit");
            let holder = holder.expect("a channel has its link");
            let expected = [&holder.0[..], &visit.words].concat();
            assert_eq!(visit.answer, expected, "a visitor got another's answer");
            Some((visit.number, Outcome::Answered(holder)))
        }
        other => panic!("{other:?} from an agent"),
    }
}
