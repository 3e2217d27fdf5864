//! An edge for tests: the real protocol, and only as much judgement as a test
//! gives it.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use adit_link::accept::{
    answer_channel, next_event, read_first, send_all, silence_deadline, stay_silent,
};
use adit_link::control::run_control;
use adit_link::edge::{EdgeLink, LinkFacts};
use adit_link::quic::Door;
use adit_link::tasks::Tasks;
use adit_link::{Counters, Socket, Stream, StreamIo, entropy};
use adit_link_proto::{
    ControlEvent, EdgeEvent, EdgeFresh, EdgeHandshake, First, Knock, ProvedLink, PskKeys, Suites,
    Timing,
};
use adit_model::{
    Carrier, CarrierDoor, ConnId, Credential, Identity, InstanceId, JoinString, LinkId, Pin, Psk,
    PublicKey, TunnelId,
};
use adit_wire::{AuthOk, Message, OpenTunnel, Start, TunnelKind, TunnelState, TunnelStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub(crate) const HEARTBEAT: Duration = Duration::from_millis(200);

/// What the edge decides.
pub(crate) struct Policy {
    /// Secrets that prove anything.
    pub(crate) secrets: Vec<Psk>,
    /// Handed to each agent that is admitted.
    pub(crate) hand_out: Option<Psk>,
    /// Wanted of each agent.
    pub(crate) pin: Option<Pin>,
    /// Refuse all.
    pub(crate) refuse: bool,
    /// Refuse this many tunnels.
    pub(crate) refuse_tunnels: usize,
    /// Links by this carrier end as soon as they have a tunnel, as where
    /// something on the way cuts them.
    pub(crate) cut: Option<Carrier>,
    /// Sockets of links by this carrier are not answered.
    pub(crate) silent: Option<Carrier>,
    /// Links by this carrier are answered so much later.
    pub(crate) late: Option<(Carrier, Duration)>,
}

/// A link that was admitted.
pub(crate) struct Joined {
    pub(crate) link: Arc<EdgeLink>,
    pub(crate) messages: mpsc::Receiver<Message>,
    pub(crate) instance: InstanceId,
    /// The secret that the agent showed.
    pub(crate) secret: Psk,
}

impl Joined {
    /// The next tunnel that the agent opens.
    pub(crate) async fn opened(&mut self) -> OpenTunnel {
        loop {
            if let Message::OpenTunnel(open) = self.messages.recv().await.unwrap() {
                return open;
            }
        }
    }

    pub(crate) async fn stream(&self, tunnel: u32) -> Stream {
        let start = Start {
            tunnel: TunnelId(tunnel),
            conn: ConnId(9),
            visitor: "192.0.2.7:5000".parse().unwrap(),
            patience_ms: Start::PATIENCE_MS,
            door: None,
            idle_ms: None,
            forwarder: None,
        };
        self.link.open(&start).await.unwrap()
    }

    pub(crate) async fn io(&self, tunnel: u32) -> StreamIo {
        StreamIo(self.stream(tunnel).await)
    }
}

struct Shared {
    identity: Identity,
    policy: Mutex<Policy>,
    links: Mutex<Vec<Arc<EdgeLink>>>,
    dials: Mutex<usize>,
    proofs: Mutex<usize>,
    doors: Mutex<Vec<CarrierDoor>>,
    tell: mpsc::Sender<Joined>,
}

pub(crate) struct TestEdge {
    pub(crate) address: SocketAddr,
    pub(crate) joined: mpsc::Receiver<Joined>,
    shared: Arc<Shared>,
    tasks: Tasks,
}

pub(crate) fn secret(n: u8) -> Psk {
    Psk::from_random(std::array::from_fn(|i| (i as u8).wrapping_mul(29) ^ n))
}

impl TestEdge {
    pub(crate) async fn start() -> Self {
        let (tell, joined) = mpsc::channel(16);
        let shared = Arc::new(Shared {
            identity: Identity::from_seed([1; 32]).unwrap(),
            policy: Mutex::new(Policy {
                secrets: vec![secret(1)],
                hand_out: None,
                pin: None,
                refuse: false,
                refuse_tunnels: 0,
                cut: None,
                silent: None,
                late: None,
            }),
            links: Mutex::default(),
            dials: Mutex::default(),
            proofs: Mutex::default(),
            doors: Mutex::default(),
            tell,
        });
        let mut edge = Self {
            address: ([127, 0, 0, 1], 0).into(),
            joined,
            shared,
            tasks: Tasks::new(),
        };
        edge.listen().await;
        edge
    }

    async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (shared, tasks) = (Arc::clone(&self.shared), self.tasks.clone());
        self.tasks.spawn_until_stopped(async move {
            loop {
                let (socket, peer) = listener.accept().await.unwrap();
                let shared = Arc::clone(&shared);
                tasks.spawn_until_stopped(async move { shared.serve(socket, peer).await });
            }
        });
    }

    /// Opens a QUIC door too.
    pub(crate) fn open_quic(&self) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let edge = self.shared.identity.public();
        self.tell_door(Carrier::Quic, port);
        let shared = Arc::clone(&self.shared);
        let judge = Arc::new(move |knock: &Knock| {
            let known = shared.policy.lock().unwrap().secrets.clone();
            let mut keys = known.iter().map(PskKeys::new);
            keys.any(|keys| knock.fits(&keys, &edge))
        });
        let ground = (&self.tasks, Arc::default());
        let door = Door::open(socket, 64, (&self.shared.identity, judge), ground).unwrap();
        let (shared, tasks) = (Arc::clone(&self.shared), self.tasks.clone());
        let serve = move |socket, peer| {
            let shared = Arc::clone(&shared);
            tasks.spawn_until_stopped(async move { shared.serve(socket, peer).await });
        };
        let stop = self.tasks.stopping().clone();
        let links = self.tasks.clone();
        self.tasks
            .spawn_until_stopped(door.serve(links, stop, std::future::pending, serve));
    }

    /// Ends everything as kill -9 would: sockets close, nothing is said.
    pub(crate) async fn kill(&mut self) {
        assert!(self.tasks.close(Duration::from_secs(5)).await);
        self.shared.links.lock().unwrap().clear();
        self.tasks = Tasks::new();
    }

    /// Listens again at the same address.
    pub(crate) async fn restart(&mut self) {
        self.listen().await;
    }

    pub(crate) fn policy(&self) -> MutexGuard<'_, Policy> {
        self.shared.policy.lock().unwrap()
    }

    /// Sockets that showed a first message of a link.
    pub(crate) fn dials(&self) -> usize {
        *self.shared.dials.lock().unwrap()
    }

    /// Agents that have said who they are.
    pub(crate) fn proofs(&self) -> usize {
        *self.shared.proofs.lock().unwrap()
    }

    /// Tells of a door for another carrier.
    pub(crate) fn tell_door(&self, carrier: Carrier, port: u16) {
        let door = CarrierDoor { carrier, port };
        self.shared.doors.lock().unwrap().push(door);
    }

    pub(crate) fn join_string(&self) -> JoinString {
        JoinString {
            addresses: vec![self.address.to_string()],
            doors: self.shared.doors.lock().unwrap().clone(),
            edge: self.shared.identity.public(),
            credential: Credential::Shared(secret(1)),
        }
    }

    pub(crate) async fn next(&mut self) -> Joined {
        let next = tokio::time::timeout(Duration::from_secs(20), self.joined.recv());
        next.await.expect("an agent joins in time").unwrap()
    }
}

impl Shared {
    async fn serve(&self, socket: impl Into<Socket>, peer: SocketAddr) {
        let mut socket = socket.into();
        let deadline = silence_deadline().unwrap();
        let Some(bytes) = read_first(&mut socket, deadline).await else {
            return;
        };
        let first = First::parse(&bytes);
        let links = self.links.lock().unwrap().clone();
        for link in links {
            if let Some(proved) = link.keys().prove_channel(&first) {
                assert!(link.keys().burn(proved.number));
                let counters = Arc::new(Counters::default());
                let channel = answer_channel(socket, &proved, link.keys(), counters).await;
                link.add_channel(channel.unwrap());
                return;
            }
        }
        *self.dials.lock().unwrap() += 1;
        if self.policy.lock().unwrap().silent == Some(socket.carrier()) {
            stay_silent(&mut socket, deadline).await;
            return;
        }
        let late = self.policy.lock().unwrap().late;
        if let Some((_, wait)) = late.filter(|(of, _)| *of == socket.carrier()) {
            let mut nothing = [0];
            // As a busy edge does, which reads nothing meanwhile.
            let gone = tokio::time::timeout(wait, socket.read(&mut nothing));
            drop(gone.await);
        }
        self.admit(socket, peer, &first).await;
    }

    async fn admit(&self, mut socket: Socket, peer: SocketAddr, first: &First) {
        let known = self.policy.lock().unwrap().secrets.clone();
        let proved = known.into_iter().find_map(|secret| {
            let keys = PskKeys::new(&secret);
            let proved = first.prove_link(&keys, &self.identity.public())?;
            Some((secret, keys, proved))
        });
        let Some((secret, keys, proved)) = proved else {
            return;
        };
        let Some((shaking, identity, instance)) = self.judge(&mut socket, &proved, &keys).await
        else {
            return;
        };
        let facts = LinkFacts {
            id: LinkId(7),
            identity,
            instance,
            peer,
            carrier: socket.carrier(),
            max_channels: 64,
            idle_channels: 1,
            workers: 1,
        };
        let auth = self.welcome();
        let timing = Timing {
            heartbeat: HEARTBEAT,
            dead: HEARTBEAT * 10,
        };
        let (bytes, session) = shaking
            .admit(&auth, timing, std::time::Instant::now())
            .unwrap();
        socket.prepare().unwrap();
        socket.write_all(&bytes).await.unwrap();
        let link = EdgeLink::new(facts, session.keys, Arc::default());
        self.links.lock().unwrap().push(Arc::clone(&link));
        let (forward, messages) = mpsc::channel(64);
        let joined = Joined {
            link: Arc::clone(&link),
            messages,
            instance,
            secret,
        };
        self.tell.send(joined).await.unwrap();
        run_control(
            socket,
            Box::new(session.control),
            link.outbox(),
            link.ended(),
            |event| self.on_control(event, &link, &forward),
        )
        .await;
        link.cut();
    }

    /// Shakes hands; says no where the policy does.
    async fn judge(
        &self,
        socket: &mut Socket,
        proved: &ProvedLink,
        keys: &PskKeys,
    ) -> Option<(EdgeHandshake, PublicKey, InstanceId)> {
        let fresh = EdgeFresh {
            ephemeral: entropy::random().unwrap(),
            nonce: entropy::random().unwrap(),
        };
        let suites = Suites { aes: true };
        let now = std::time::Instant::now();
        let mut shaking =
            EdgeHandshake::start(proved, keys, &self.identity, fresh, suites, now).unwrap();
        let Ok(EdgeEvent::AgentProved {
            identity, instance, ..
        }) = next_event(socket, &mut shaking).await
        else {
            return None;
        };
        *self.proofs.lock().unwrap() += 1;
        let (pin, refuse) = {
            let policy = self.policy.lock().unwrap();
            (policy.pin.clone(), policy.refuse)
        };
        let mut right = !refuse;
        if let Some(pin) = pin {
            shaking.ask_pin().unwrap();
            match next_event(socket, &mut shaking).await {
                Ok(EdgeEvent::PinOffered(proof)) => right &= proof.matches(&pin),
                _ => return None,
            }
        }
        if !right {
            shaking.refuse().unwrap();
            send_all(socket, &mut shaking).await.unwrap();
            return None;
        }
        Some((shaking, identity, instance))
    }

    fn welcome(&self) -> AuthOk {
        AuthOk {
            link: LinkId(7),
            agent_secret: self.policy.lock().unwrap().hand_out.clone(),
            url_pattern: "http://{name}.example.test".into(),
            heartbeat_ms: 200,
            dead_ms: 2_000,
            idle_channels: 1,
            max_channels: 64,
            version: "test".into(),
            doors: self.doors.lock().unwrap().clone(),
        }
    }

    fn on_control(
        &self,
        event: ControlEvent,
        link: &EdgeLink,
        forward: &mpsc::Sender<Message>,
    ) -> ControlFlow<()> {
        let ControlEvent::Message(message) = event else {
            return ControlFlow::Continue(());
        };
        let opens = matches!(message, Message::OpenTunnel(_));
        if let Message::OpenTunnel(open) = &message {
            let mut policy = self.policy.lock().unwrap();
            let refused = policy.refuse_tunnels > 0;
            policy.refuse_tunnels = policy.refuse_tunnels.saturating_sub(1);
            link.send(Message::TunnelStatus(TunnelStatus {
                tunnel: open.tunnel,
                state: if refused {
                    TunnelState::Refused
                } else {
                    TunnelState::Live
                },
                // As of an edge with doors of both kinds.
                url: (open.kind == TunnelKind::Tcp).then(|| {
                    let port = open.port.map_or(20_000, NonZeroU16::get);
                    format!("tcp://edge.example.test:{port}")
                }),
                code: if refused { 4001 } else { 0 },
                text: if refused { "taken" } else { "" }.into(),
            }));
        }
        if opens && self.policy.lock().unwrap().cut == Some(link.facts().carrier) {
            link.cut();
        }
        // A test that does not read them does not want them.
        drop(forward.try_send(message));
        ControlFlow::Continue(())
    }
}
