//! An edge: admits agents, leases names, carries visitors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_link_proto::{
    Control, ControlEvent, EdgeEvent, EdgeFresh, EdgeHandshake, FIRST_LEN, First, Holder,
    LeaseLimits, Leases, Owner, ProvedChannel, PskKeys, ReplayCache, Role, Seen, Session,
    SessionKeys, Suites, Timing, WallClock,
};
use adit_model::{ConnId, Identity, InstanceId, LinkId, PublicKey, TunnelId, TunnelName};
use adit_wire::{AuthOk, FrameKind, Message, OpenTunnel, Start, TunnelState, TunnelStatus};

use crate::channel::{Frame, Sealed};
use crate::clock::HostClock;
use crate::model::LeaseModel;
use crate::net::{Arrival, Conn, Net, Side};
use crate::rng::Rng;

/// How long names wait for their owner.
pub(crate) const GRACE: Duration = Duration::from_secs(60);
/// How long a visitor waits for a channel and its answer.
const VISIT_TIME: Duration = Duration::from_secs(12);
const IDLE_CHANNELS: u16 = 2;
/// An idle channel that was silent for this long is pinged.
const PING_AFTER: Duration = Duration::from_secs(20);
/// An idle channel that was silent for this long is given up.
pub(crate) const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// What a visitor got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its own words back, from this agent.
    Answered(PublicKey),
    /// Nothing; it was told so.
    Failed,
}

enum Peer {
    /// Nothing is proved yet.
    First {
        input: Vec<u8>,
        until: Instant,
    },
    /// Nothing will be: bytes are thrown away until then.
    Silent {
        until: Instant,
    },
    Shaking(Box<Shaking>),
    Control(LinkId),
    Channel(Box<Channel>),
}

struct Shaking {
    handshake: EdgeHandshake,
}

struct Channel {
    link: LinkId,
    sealed: Sealed,
    stream: u32,
    visit: Option<Visit>,
    fin: bool,
    heard: Instant,
    pinged: bool,
}

impl Channel {
    /// When it is to be pinged or given up while it is idle, or its visit is
    /// to be given up.
    fn due(&self) -> Instant {
        match &self.visit {
            Some(visit) => visit.until,
            None if self.pinged => self.heard + IDLE_LIMIT,
            None => self.heard + PING_AFTER,
        }
    }
}

struct Visit {
    number: u64,
    words: [u8; 16],
    answer: Vec<u8>,
    until: Instant,
}

struct Link {
    conn: Conn,
    control: Control,
    keys: Arc<SessionKeys>,
    holder: Holder,
    tunnels: BTreeMap<TunnelId, TunnelName>,
    used: BTreeSet<u64>,
}

/// A simulated edge.
pub struct Edge {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Its host's clocks.
    pub clock: HostClock,
    /// What visitors got, by their numbers; none while they wait.
    pub visits: BTreeMap<u64, Option<Outcome>>,
    /// Connections that got a byte from the edge.
    pub(crate) spoken_to: BTreeSet<Conn>,
    /// Links that ever came alive.
    pub links_ever: u64,
    psk: Arc<PskKeys>,
    rng: Rng,
    wall: WallClock,
    replay: ReplayCache,
    /// What a kill leaves behind.
    disk: Vec<Seen>,
    accepted: BTreeSet<[u8; 16]>,
    leases: Leases,
    model: LeaseModel,
    peers: BTreeMap<Conn, Peer>,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    waiting: Vec<(LinkId, TunnelId, Visit)>,
    feed_at: Instant,
}

impl Edge {
    pub(crate) fn new(psk: Arc<PskKeys>, clock: HostClock, rng: Rng, now: Instant) -> Self {
        let identity = Identity::from_seed([200; 32]).expect("any seed is a key");
        Self {
            identity: Arc::new(identity),
            visits: BTreeMap::new(),
            spoken_to: BTreeSet::new(),
            links_ever: 0,
            psk,
            rng,
            wall: WallClock::new(clock.boot(now), clock.wall(now)),
            clock,
            replay: ReplayCache::new(500, 400),
            disk: Vec::new(),
            accepted: BTreeSet::new(),
            leases: new_leases(),
            model: LeaseModel::new(GRACE),
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 0,
            waiting: Vec::new(),
            feed_at: now,
        }
    }

    /// The agents that hold a name.
    #[must_use]
    pub fn holders(&self, name: &TunnelName) -> Vec<PublicKey> {
        self.leases.holders(name).map(|(h, _)| h.identity).collect()
    }

    /// Live links.
    #[must_use]
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Whether a connection is a live link's control channel.
    #[must_use]
    pub fn is_control(&self, conn: Conn) -> bool {
        matches!(self.peers.get(&conn), Some(Peer::Control(_)))
    }

    /// Connections that it knows.
    #[must_use]
    pub fn conns(&self) -> Vec<Conn> {
        self.peers.keys().copied().collect()
    }

    /// Killed and started again at once: its memory is gone, its disk is not.
    pub(crate) fn restart(&mut self, now: Instant, net: &mut Net) {
        for conn in self.conns() {
            net.close(conn, Side::Edge, now);
        }
        let visits = self.peers.values().filter_map(|peer| match peer {
            Peer::Channel(channel) => channel.visit.as_ref().map(|v| v.number),
            _ => None,
        });
        let visits: Vec<u64> = visits.collect();
        for number in visits
            .into_iter()
            .chain(self.waiting.iter().map(|(_, _, v)| v.number))
        {
            self.visits.insert(number, Some(Outcome::Failed));
        }
        self.peers.clear();
        self.links.clear();
        self.waiting.clear();
        self.leases = new_leases();
        self.model.forget();
        self.wall = WallClock::new(self.clock.boot(now), self.clock.wall(now));
        self.replay = ReplayCache::new(500, 400);
        self.replay.restore(self.disk.iter().copied());
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        let peers = self.peers.values().filter_map(|peer| match peer {
            Peer::First { until, .. } | Peer::Silent { until } => Some(*until),
            Peer::Shaking(shaking) => Some(shaking.handshake.deadline()),
            Peer::Control(_) => None,
            Peer::Channel(channel) => Some(channel.due()),
        });
        let links = self.links.values().filter_map(|l| l.control.poll_timeout());
        let waiting = self.waiting.iter().map(|(_, _, visit)| visit.until);
        peers
            .chain(links)
            .chain(waiting)
            .chain([self.feed_at])
            .min()
    }

    pub(crate) fn on_time(&mut self, now: Instant, net: &mut Net) {
        if self.feed_at <= now {
            self.feed_at = now + Duration::from_secs(1);
            let (boot, wall) = (self.clock.boot(now), self.clock.wall(now));
            if self.wall.feed(boot, wall).is_some() {
                self.replay.reanchor(self.wall.not_before());
            }
        }
        for conn in self.conns() {
            let over = match self.peers.get(&conn) {
                Some(Peer::First { until, .. } | Peer::Silent { until }) => *until <= now,
                Some(Peer::Shaking(s)) => s.handshake.deadline() <= now,
                Some(Peer::Channel(c)) => c.due() <= now && (c.visit.is_some() || c.pinged),
                _ => false,
            };
            if over {
                self.drop_peer(conn, now, net);
            } else {
                self.ping(conn, now, net);
            }
        }
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            if let Some(link) = self.links.get_mut(&id) {
                link.control.handle_timeout(now);
            }
            self.drive(id, now, net);
        }
        self.waiting.retain(|(_, _, visit)| {
            if visit.until <= now {
                self.visits.insert(visit.number, Some(Outcome::Failed));
            }
            visit.until > now
        });
    }

    fn ping(&mut self, conn: Conn, now: Instant, net: &mut Net) {
        if let Some(Peer::Channel(channel)) = self.peers.get_mut(&conn)
            && channel.due() <= now
        {
            channel.pinged = true;
            let mut out = Vec::new();
            channel.sealed.seal(FrameKind::PING, 0, &[], &mut out);
            net.send(conn, Side::Edge, &out, now);
        }
    }

    pub(crate) fn on_arrival(&mut self, conn: Conn, what: Arrival, now: Instant, net: &mut Net) {
        let until = now + Duration::from_secs(5 + self.rng.below(10));
        let input = Vec::new();
        let peer = self
            .peers
            .entry(conn)
            .or_insert(Peer::First { input, until });
        let Arrival::Bytes(bytes) = what else {
            return self.drop_peer(conn, now, net);
        };
        match peer {
            Peer::Silent { .. } => {}
            Peer::First { input, until } => {
                input.extend_from_slice(&bytes);
                if input.len() >= FIRST_LEN {
                    let (input, until) = (std::mem::take(input), *until);
                    *peer = Peer::Silent { until };
                    self.on_first(conn, &input, now, net);
                }
            }
            Peer::Shaking(shaking) => {
                if shaking.handshake.handle_input(&bytes).is_err() {
                    return self.drop_peer(conn, now, net);
                }
                self.on_shaking(conn, now, net);
            }
            Peer::Control(id) => {
                let id = *id;
                let link = self
                    .links
                    .get_mut(&id)
                    .expect("a control channel has its link");
                if link.control.handle_input(&bytes, now).is_err() {
                    return self.end_link(id, now, net);
                }
                self.drive(id, now, net);
            }
            Peer::Channel(_) => self.on_channel(conn, &bytes, now, net),
        }
    }

    /// A first message: a link, a channel, or silence.
    fn on_first(&mut self, conn: Conn, input: &[u8], now: Instant, net: &mut Net) {
        let Some((first, rest)) = input.split_first_chunk::<FIRST_LEN>() else {
            return;
        };
        let (first, unix) = (First::parse(first), self.wall.now(self.clock.boot(now)));
        let (id, nonce) = (first.id(), first.nonce());
        if self.psk.ids_around(unix).contains(&id) {
            let Some(proved) = first.prove_link(&self.psk, &self.identity.public()) else {
                return;
            };
            if self.replay.check(id, nonce, first.unix(), unix).is_err() {
                return;
            }
            assert!(self.accepted.insert(nonce), "a first message worked twice");
            self.disk.push(Seen {
                id,
                nonce,
                stamp: first.unix(),
            });
            let fresh = EdgeFresh {
                ephemeral: self.rng.bytes(),
                nonce: self.rng.bytes(),
            };
            let suites = Suites {
                aes: self.rng.chance(50),
            };
            let (keys, identity) = (Arc::clone(&self.psk), Arc::clone(&self.identity));
            let Ok(handshake) = EdgeHandshake::start(&proved, &keys, &identity, fresh, suites, now)
            else {
                return;
            };
            self.peers
                .insert(conn, Peer::Shaking(Box::new(Shaking { handshake })));
            self.on_shaking(conn, now, net);
            if !rest.is_empty() {
                self.on_arrival(conn, Arrival::Bytes(rest.to_vec()), now, net);
            }
            return;
        }
        let found = self.links.iter().find_map(|(link, l)| {
            let known = l.keys.ids_around(unix).contains(&id);
            known.then(|| l.keys.prove_channel(&first).map(|proved| (*link, proved)))?
        });
        if let Some((link, proved)) = found {
            self.add_channel(conn, link, &proved, now, net);
        }
    }

    fn on_shaking(&mut self, conn: Conn, now: Instant, net: &mut Net) {
        let Some(Peer::Shaking(shaking)) = self.peers.get_mut(&conn) else {
            return;
        };
        if let Some(bytes) = shaking.handshake.poll_transmit() {
            self.spoken_to.insert(conn);
            net.send(conn, Side::Edge, &bytes, now);
        }
        if let Some(EdgeEvent::AgentProved {
            identity, instance, ..
        }) = shaking.handshake.poll_event()
        {
            self.admit(conn, identity, instance, now, net);
        }
    }

    fn admit(
        &mut self,
        conn: Conn,
        identity: PublicKey,
        instance: InstanceId,
        now: Instant,
        net: &mut Net,
    ) {
        let Some(Peer::Shaking(shaking)) = self.peers.remove(&conn) else {
            return;
        };
        self.next_link += 1;
        self.links_ever += 1;
        let id = LinkId(self.next_link);
        let welcome = AuthOk {
            link: id,
            agent_secret: None,
            url_pattern: "http://{name}.sim.test".into(),
            heartbeat_ms: 10_000,
            dead_ms: 20_000,
            idle_channels: IDLE_CHANNELS,
            max_channels: 100,
            version: "sim".into(),
        };
        let admitted = shaking.handshake.admit(&welcome, Timing::default(), now);
        let (bytes, Session { control, keys }) = admitted.expect("a decision was due");
        net.send(conn, Side::Edge, &bytes, now);
        self.peers.insert(conn, Peer::Control(id));
        let holder = Holder {
            link: id,
            identity,
            instance,
            owner: Owner::Shared,
        };
        self.links.insert(
            id,
            Link {
                conn,
                control,
                keys,
                holder,
                tunnels: BTreeMap::new(),
                used: BTreeSet::new(),
            },
        );
    }

    fn add_channel(
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

    /// Handles a control channel's events and sends what it has to send.
    fn drive(&mut self, id: LinkId, now: Instant, net: &mut Net) {
        while let Some(link) = self.links.get_mut(&id) {
            let Some(event) = link.control.poll_event() else {
                break;
            };
            match event {
                ControlEvent::Dead => return self.end_link(id, now, net),
                ControlEvent::WantEphemeral => {
                    if link.control.rekey(self.rng.bytes(), now).is_err() {
                        return self.end_link(id, now, net);
                    }
                }
                ControlEvent::Message(Message::OpenTunnel(open)) => {
                    self.open_tunnel(id, &open, now, net);
                }
                ControlEvent::Message(_) | ControlEvent::Rtt(_) | ControlEvent::Rekeyed(_) => {}
            }
        }
        if let Some(link) = self.links.get_mut(&id)
            && let Some(bytes) = link.control.poll_transmit()
        {
            net.send(link.conn, Side::Edge, &bytes, now);
        }
    }

    fn open_tunnel(&mut self, id: LinkId, open: &OpenTunnel, now: Instant, net: &mut Net) {
        let Some(holder) = self.links.get(&id).map(|link| link.holder) else {
            return;
        };
        let real = self.leases.claim(&open.name, holder, open.exclusive, now);
        let modelled = self.model.claim(&open.name, holder, open.exclusive, now);
        let fenced = real.as_ref().map(|c| c.fenced.iter().copied().collect());
        assert_eq!(
            fenced.map_err(|refused| *refused),
            modelled,
            "claim of {}",
            open.name
        );
        for fenced in real.iter().flat_map(|claim| claim.fenced.clone()) {
            self.supersede(fenced, &open.name, now, net);
        }
        let state = match real {
            Ok(_) => TunnelState::Live,
            Err(_) => TunnelState::Refused,
        };
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if state == TunnelState::Live {
            link.tunnels.insert(open.tunnel, open.name.clone());
        }
        let status = TunnelStatus {
            tunnel: open.tunnel,
            state,
            url: None,
            code: 0,
            text: String::new(),
        };
        let sent = link.control.send(&Message::TunnelStatus(status));
        sent.expect("there is room for a status");
    }

    /// A link lost a name to a newer link of the same process; one without
    /// names is told so and ends.
    fn supersede(&mut self, id: LinkId, name: &TunnelName, now: Instant, net: &mut Net) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.tunnels.retain(|_, held| held != name);
        if link.tunnels.is_empty() {
            let sent = link.control.send(&Message::Superseded);
            sent.expect("there is room for a word");
            self.drive(id, now, net);
            self.end_link(id, now, net);
        }
    }

    fn end_link(&mut self, id: LinkId, now: Instant, net: &mut Net) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        self.leases.release(id, now);
        self.model.release(id, now);
        self.peers.remove(&link.conn);
        net.close(link.conn, Side::Edge, now);
        for conn in self.conns() {
            if matches!(self.peers.get(&conn), Some(Peer::Channel(c)) if c.link == id) {
                self.drop_peer(conn, now, net);
            }
        }
        self.waiting.retain(|(of, _, visit)| {
            if *of == id {
                self.visits.insert(visit.number, Some(Outcome::Failed));
            }
            *of != id
        });
    }

    fn drop_peer(&mut self, conn: Conn, now: Instant, net: &mut Net) {
        match self.peers.remove(&conn) {
            Some(Peer::Control(id)) => self.end_link(id, now, net),
            Some(Peer::Channel(channel)) => {
                if let Some(visit) = channel.visit {
                    self.visits.insert(visit.number, Some(Outcome::Failed));
                }
            }
            _ => {}
        }
        net.close(conn, Side::Edge, now);
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

    fn begin(&mut self, conn: Conn, tunnel: TunnelId, visit: Visit, now: Instant, net: &mut Net) {
        let Some(Peer::Channel(channel)) = self.peers.get_mut(&conn) else {
            return;
        };
        channel.stream += 1;
        channel.fin = false;
        let start = Start {
            tunnel,
            conn: ConnId(visit.number),
            visitor: ([192, 0, 2, 1], 40_000).into(),
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

    fn on_channel(&mut self, conn: Conn, bytes: &[u8], now: Instant, net: &mut Net) {
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

    /// # Panics
    /// When the books differ from the model.
    pub(crate) fn check(&self, names: &[TunnelName], now: Instant) {
        self.model.check(&self.leases, names, now);
        for name in names {
            for (holder, _) in self.leases.holders(name) {
                let link = self.links.get(&holder.link);
                let link = link.expect("a holder's link is live");
                assert!(link.tunnels.values().any(|held| held == name));
            }
        }
        assert!(self.replay.len() <= 500);
        for link in self.links.values() {
            assert!(
                !link.control.is_over(),
                "a link that is over is still there"
            );
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

fn new_leases() -> Leases {
    Leases::new(LeaseLimits {
        grace: GRACE,
        ..LeaseLimits::default()
    })
}
