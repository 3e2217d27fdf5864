//! An agent: dials, proves itself, opens its tunnels, answers streams with
//! what they said, and comes back whenever its link ends.

mod channels;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_link_proto::{
    AgentEvent, AgentFresh, AgentHandshake, Control, ControlEvent, PskKeys, Session, SessionKeys,
    Suites,
};
use adit_model::{Identity, InstanceId, PublicKey, TunnelId, TunnelName};
use adit_wire::{Compression, Message, OpenTunnel, TunnelKind, TunnelState, TunnelStatus};

use crate::clock::HostClock;
use crate::edge::IDLE_LIMIT;
use crate::net::{Arrival, Conn, Net, Side};
use crate::rng::Rng;

use channels::Channel;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long an edge may stay silent to a handshake.
const PATIENCE: Duration = Duration::from_secs(10);

enum State {
    Down {
        retry_at: Instant,
    },
    Shaking {
        conn: Conn,
        handshake: Box<AgentHandshake>,
        until: Instant,
    },
    Live(Box<Link>),
    /// Another process of its kind took over, or it was switched off.
    Off,
}

struct Link {
    conn: Conn,
    control: Control,
    keys: Arc<SessionKeys>,
    channels: BTreeMap<Conn, Channel>,
    /// When each channel was last heard.
    heard: BTreeMap<Conn, Instant>,
    next_number: u64,
    states: BTreeMap<TunnelId, TunnelState>,
}

/// A simulated agent.
pub struct Agent {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// The names that it publishes.
    pub names: Vec<TunnelName>,
    /// Whether it wants them alone.
    pub exclusive: bool,
    /// Its host's clocks.
    pub clock: HostClock,
    /// Times that it lost a live link.
    pub lost: u64,
    psk: Arc<PskKeys>,
    edge: PublicKey,
    instance: InstanceId,
    rng: Rng,
    state: State,
    pause: Duration,
    rekey_every: Duration,
}

impl Agent {
    #[expect(clippy::too_many_arguments, reason = "each is a fact of its own")]
    pub(crate) fn new(
        seed: u8,
        names: Vec<TunnelName>,
        exclusive: bool,
        psk: Arc<PskKeys>,
        edge: PublicKey,
        clock: HostClock,
        mut rng: Rng,
        now: Instant,
    ) -> Self {
        let identity = Identity::from_seed([seed; 32]).expect("any seed is a key");
        Self {
            identity: Arc::new(identity),
            names,
            exclusive,
            clock,
            lost: 0,
            psk,
            edge,
            instance: InstanceId(rng.bytes()),
            rng,
            state: State::Down { retry_at: now },
            pause: FIRST_PAUSE,
            rekey_every: Duration::from_secs(90),
        }
    }

    /// Whether its link is live.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    /// Whether it has given up because another process took over.
    #[must_use]
    pub fn is_off(&self) -> bool {
        matches!(self.state, State::Off)
    }

    /// The tunnels that the edge called live.
    #[must_use]
    pub fn open_tunnels(&self) -> usize {
        let State::Live(link) = &self.state else {
            return 0;
        };
        link.states
            .values()
            .filter(|s| **s == TunnelState::Live)
            .count()
    }

    /// The connections that it has, its control channel first.
    #[must_use]
    pub fn conns(&self) -> Vec<Conn> {
        match &self.state {
            State::Down { .. } | State::Off => Vec::new(),
            State::Shaking { conn, .. } => vec![*conn],
            State::Live(link) => {
                let channels = link.channels.keys().copied();
                std::iter::once(link.conn).chain(channels).collect()
            }
        }
    }

    /// The key epoch of its link.
    #[must_use]
    pub fn epoch(&self) -> Option<u32> {
        match &self.state {
            State::Live(link) => Some(link.keys.epoch()),
            _ => None,
        }
    }

    /// The process is killed; another one of its identity starts at `again`.
    pub fn restart(&mut self, again: Instant) {
        self.instance = InstanceId(self.rng.bytes());
        self.pause = FIRST_PAUSE;
        self.state = State::Down { retry_at: again };
    }

    /// When it wants to be called next.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Down { retry_at } => Some(*retry_at),
            State::Shaking { until, .. } => Some(*until),
            State::Live(link) => {
                let silent = link.heard.values().map(|heard| *heard + IDLE_LIMIT);
                silent.chain(link.control.poll_timeout()).min()
            }
            State::Off => None,
        }
    }

    pub(crate) fn on_time(&mut self, now: Instant, net: &mut Net) {
        match &mut self.state {
            State::Down { retry_at } if *retry_at <= now => self.dial(now, net),
            State::Shaking { until, .. } if *until <= now => self.go_down(now, net),
            State::Live(link) => {
                link.control.handle_timeout(now);
                let silent = |(_, heard): &(&Conn, &Instant)| **heard + IDLE_LIMIT <= now;
                let silent = link.heard.iter().filter(silent).map(|(conn, _)| *conn);
                for conn in silent.collect::<Vec<Conn>>() {
                    self.drop_channel(conn, now, net);
                }
                self.drive(now, net);
            }
            _ => {}
        }
    }

    fn dial(&mut self, now: Instant, net: &mut Net) {
        let fresh = AgentFresh {
            ephemeral: self.rng.bytes(),
            nonce: self.rng.bytes(),
        };
        let handshake = AgentHandshake::start(
            &self.psk,
            self.edge,
            Arc::clone(&self.identity),
            self.instance,
            self.clock.wall(now),
            fresh,
            Suites {
                aes: self.rng.chance(50),
            },
            "sim",
        );
        let mut handshake = Box::new(handshake.expect("any 32 bytes are an X25519 key"));
        let conn = net.connect();
        if let Some(bytes) = handshake.poll_transmit() {
            net.send(conn, Side::Agent, &bytes, now);
        }
        self.state = State::Shaking {
            conn,
            handshake,
            until: now + PATIENCE,
        };
    }

    /// Every connection is closed and a new link is tried after a pause.
    fn go_down(&mut self, now: Instant, net: &mut Net) {
        self.lost += u64::from(self.is_live());
        for conn in self.conns() {
            net.close(conn, Side::Agent, now);
        }
        let jitter = Duration::from_millis(self.rng.below(100));
        self.state = State::Down {
            retry_at: now + self.pause + jitter,
        };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    pub(crate) fn on_arrival(&mut self, conn: Conn, what: Arrival, now: Instant, net: &mut Net) {
        match (&mut self.state, what) {
            (State::Shaking { .. }, Arrival::Closed) => self.go_down(now, net),
            (State::Shaking { .. }, Arrival::Bytes(bytes)) => self.on_handshake(&bytes, now, net),
            (State::Live(link), Arrival::Closed) if link.conn == conn => self.go_down(now, net),
            (State::Live(_), Arrival::Closed) => {
                self.drop_channel(conn, now, net);
            }
            (State::Live(link), Arrival::Bytes(bytes)) if link.conn == conn => {
                if link.control.handle_input(&bytes, now).is_err() {
                    self.go_down(now, net);
                } else {
                    self.drive(now, net);
                }
            }
            (State::Live(_), Arrival::Bytes(bytes)) => self.on_channel(conn, &bytes, now, net),
            (State::Down { .. } | State::Off, _) => {}
        }
    }

    fn on_handshake(&mut self, bytes: &[u8], now: Instant, net: &mut Net) {
        let State::Shaking {
            conn, handshake, ..
        } = &mut self.state
        else {
            return;
        };
        let conn = *conn;
        if handshake.handle_input(bytes).is_err() {
            return self.go_down(now, net);
        }
        if let Some(bytes) = handshake.poll_transmit() {
            net.send(conn, Side::Agent, &bytes, now);
        }
        match handshake.poll_event() {
            None => {}
            Some(AgentEvent::Live) => self.go_live(conn, now, net),
            Some(AgentEvent::PinWanted | AgentEvent::Refused | AgentEvent::Full) => {
                self.go_down(now, net);
            }
        }
    }

    fn go_live(&mut self, conn: Conn, now: Instant, net: &mut Net) {
        let State::Shaking { handshake, .. } =
            std::mem::replace(&mut self.state, State::Down { retry_at: now })
        else {
            return;
        };
        let Ok((welcome, Session { mut control, keys })) = handshake.finish(now) else {
            net.close(conn, Side::Agent, now);
            return self.go_down(now, net);
        };
        control.rekey_every(self.rekey_every, now);
        for (number, name) in (0u32..).zip(&self.names) {
            let open = OpenTunnel {
                tunnel: TunnelId(number),
                name: name.clone(),
                kind: TunnelKind::Http,
                exclusive: self.exclusive,
                auth: None,
                host_header: None,
                target: "sim".into(),
                port: None,
                compression: Compression::Off,
            };
            let sent = control.send(&Message::OpenTunnel(open));
            sent.expect("an agent may open tunnels");
        }
        self.pause = FIRST_PAUSE;
        self.state = State::Live(Box::new(Link {
            conn,
            control,
            keys,
            channels: BTreeMap::new(),
            heard: BTreeMap::new(),
            next_number: 0,
            states: BTreeMap::new(),
        }));
        for _ in 0..welcome.idle_channels {
            self.dial_channel(None, now, net);
        }
        self.drive(now, net);
    }

    /// Handles the control channel's events and sends what it has to send.
    fn drive(&mut self, now: Instant, net: &mut Net) {
        loop {
            let State::Live(link) = &mut self.state else {
                return;
            };
            let Some(event) = link.control.poll_event() else {
                break;
            };
            match event {
                ControlEvent::Dead => return self.go_down(now, net),
                ControlEvent::WantEphemeral => {
                    if link.control.rekey(self.rng.bytes(), now).is_err() {
                        return self.go_down(now, net);
                    }
                }
                ControlEvent::Message(Message::IncomingConn { conn, .. }) => {
                    self.dial_channel(Some(conn), now, net);
                }
                ControlEvent::Message(Message::TunnelStatus(status)) => self.on_status(&status),
                ControlEvent::Message(Message::Superseded) => {
                    for conn in self.conns() {
                        net.close(conn, Side::Agent, now);
                    }
                    self.state = State::Off;
                    return;
                }
                ControlEvent::Message(_) | ControlEvent::Rtt(_) | ControlEvent::Rekeyed(_) => {}
            }
        }
        if let State::Live(link) = &mut self.state
            && let Some(bytes) = link.control.poll_transmit()
        {
            net.send(link.conn, Side::Agent, &bytes, now);
        }
    }

    fn on_status(&mut self, status: &TunnelStatus) {
        let State::Live(link) = &mut self.state else {
            return;
        };
        link.states.insert(status.tunnel, status.state);
        if status.state == TunnelState::Refused {
            // Tries again with its next link; a refusal is no reason to end it.
            self.pause = FIRST_PAUSE;
        }
    }

    /// Asks again for names that were refused.
    pub fn ask_again(&mut self, now: Instant, net: &mut Net) {
        let State::Live(link) = &mut self.state else {
            return;
        };
        for (number, name) in (0u32..).zip(&self.names) {
            if link.states.get(&TunnelId(number)) != Some(&TunnelState::Refused) {
                continue;
            }
            let open = OpenTunnel {
                tunnel: TunnelId(number),
                name: name.clone(),
                kind: TunnelKind::Http,
                exclusive: self.exclusive,
                auth: None,
                host_header: None,
                target: "sim".into(),
                port: None,
                compression: Compression::Off,
            };
            let sent = link.control.send(&Message::OpenTunnel(open));
            sent.expect("an agent may open tunnels");
        }
        self.drive(now, net);
    }
}
