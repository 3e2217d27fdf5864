//! First messages, handshakes, and the links that come of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use adit_link_proto::{
    ControlEvent, EdgeEvent, EdgeFresh, EdgeHandshake, FIRST_LEN, First, Holder, Owner, Seen,
    Session, Suites, Timing,
};
use adit_model::{InstanceId, LinkId, PublicKey, TunnelName};
use adit_wire::{AuthOk, Message, OpenTunnel, TunnelState, TunnelStatus};

use super::{Edge, IDLE_CHANNELS, Link, Outcome, Peer};
use crate::net::{Arrival, Conn, Net, Side};

impl Edge {
    /// A first message: a link, a channel, or silence.
    pub(super) fn on_first(&mut self, conn: Conn, input: &[u8], now: Instant, net: &mut Net) {
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
            self.peers.insert(conn, Peer::Shaking(Box::new(handshake)));
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

    pub(super) fn on_shaking(&mut self, conn: Conn, now: Instant, net: &mut Net) {
        let Some(Peer::Shaking(shaking)) = self.peers.get_mut(&conn) else {
            return;
        };
        if let Some(bytes) = shaking.poll_transmit() {
            self.spoken_to.insert(conn);
            net.send(conn, Side::Edge, &bytes, now);
        }
        if let Some(EdgeEvent::AgentProved {
            identity, instance, ..
        }) = shaking.poll_event()
        {
            self.admit(conn, identity, instance, now, net);
        }
    }

    pub(super) fn admit(
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
            doors: Vec::new(),
        };
        let admitted = shaking.admit(&welcome, Timing::default(), now);
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

    /// Handles a control channel's events and sends what it has to send.
    pub(super) fn drive(&mut self, id: LinkId, now: Instant, net: &mut Net) {
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

    pub(super) fn open_tunnel(
        &mut self,
        id: LinkId,
        open: &OpenTunnel,
        now: Instant,
        net: &mut Net,
    ) {
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
    pub(super) fn supersede(&mut self, id: LinkId, name: &TunnelName, now: Instant, net: &mut Net) {
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

    pub(super) fn end_link(&mut self, id: LinkId, now: Instant, net: &mut Net) {
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
}
