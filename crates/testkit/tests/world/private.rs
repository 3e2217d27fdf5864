//! Private tunnels: from agent to agent, through no public door.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_agent::{
    AgentEvent, By, Carries, DataFolder, ForwardSettings, Peers, PinFrom, TunnelSettings,
};
use adit_model::{Code, PublicKey, TunnelName};
use adit_testkit::between::Between;
use adit_testkit::process::Process;
use adit_testkit::raw::{Socket, nobody, origin};
use adit_testkit::sshd::Sshd;
use adit_testkit::wait::until_true;
use adit_testkit::world::{Agent, AgentPlan, World, tcp_tunnel};

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn name(text: &str) -> TunnelName {
    TunnelName::parse(text).unwrap()
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
pub(crate) fn key_of(plan: &AgentPlan) -> PublicKey {
    let data = DataFolder::open(&plan.settings.data).unwrap();
    data.identity().unwrap().public()
}

/// An agent that offers a service to others.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
pub(crate) fn offers(world: &World, called: &str, target: SocketAddr, peers: Peers) -> AgentPlan {
    let mut plan = AgentPlan::new(world, called, target);
    plan.settings.tunnels = vec![TunnelSettings {
        name: Some(name(called)),
        carries: Carries::Bytes {
            target: target.to_string().parse().unwrap(),
            by: By::Agents(peers),
            proxy_protocol: None,
        },
        exclusive: false,
        compression: None,
    }];
    plan
}

/// An agent that wants one.
pub(crate) fn wants(world: &World, called: &str, peer: PublicKey) -> AgentPlan {
    let mut plan = AgentPlan::new(world, called, nobody());
    plan.settings.tunnels = Vec::new();
    plan.settings.forwards = vec![ForwardSettings {
        name: name(called),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        peer,
    }];
    plan
}

/// Starts an agent with the PIN of this moment: it changes with each admission.
pub(crate) fn start(world: &World, mut plan: AgentPlan) -> Agent {
    let pin = world.edge().pin();
    plan.settings.pin = pin.map_or(PinFrom::Nowhere, PinFrom::Fixed);
    world.start_agent(plan)
}

/// Where an agent's local door is.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
pub(crate) fn door(agent: &Agent, called: &str) -> SocketAddr {
    let url = agent.wait_live(called);
    url.strip_prefix("tcp://").unwrap().parse().unwrap()
}

fn greeter() -> SocketAddr {
    origin(|mut socket: Socket| {
        socket.send("hello\n");
        let (said, clean) = socket.rest();
        if clean {
            socket.send(said);
            socket.send("bye\n");
        }
    })
}

/// A world with a private tunnel `db` and an agent that may reach it.
struct Pair {
    target: Agent,
    forwarder: Agent,
    at: SocketAddr,
    keys: [PublicKey; 2],
}

impl Pair {
    fn of(world: &World, service: SocketAddr) -> Self {
        let mut asks = wants(world, "db", PublicKey([0; 32]));
        let plan = offers(world, "db", service, Peers::Only(vec![key_of(&asks)]));
        let keys = [key_of(&plan), key_of(&asks)];
        asks.settings.forwards[0].peer = keys[0];
        let target = start(world, plan);
        assert_eq!(target.wait_live("db"), "private:db");
        let forwarder = start(world, asks);
        let at = door(&forwarder, "db");
        Self {
            target,
            forwarder,
            at,
            keys,
        }
    }
}

fn visit(at: SocketAddr) -> bool {
    let mut visitor = Socket::dial(at);
    if visitor.until("\n") != b"hello\n" {
        return false;
    }
    visitor.send("some words");
    visitor.finish();
    visitor.rest() == (b"some wordsbye\n".to_vec(), true)
}

/// A connection that is reset, and what its agent tells.
fn refused(agent: &Agent, at: SocketAddr) -> (u16, String) {
    assert_eq!(Socket::dial(at).rest(), (Vec::new(), false));
    agent.wait("its owner is told", |event| match event {
        AgentEvent::TunnelTrouble { code, text, .. } => Some((*code, text.clone())),
        _ => None,
    })
}

#[test]
fn an_agent_reaches_a_service_of_another_and_each_direction_ends_alone() {
    let world = World::new();
    let pair = Pair::of(&world, greeter());
    for _ in 0..3 {
        assert!(visit(pair.at));
    }
    until_true("the streams are counted", || {
        world.metric("adit_private_streams_total") > 2.0
            && world.metric("adit_private_streams_open") < 1.0
            && world.metric("adit_private_bytes_total{direction=\"in\"}") > 29.0
    });
    drop(pair.target);
    drop(pair.forwarder);
}

#[test]
fn ssh_moves_files_through_it() {
    let world = World::new();
    let sshd = Sshd::start();
    let pair = Pair::of(&world, sshd.address);
    let file = world.folder("sent");
    let bytes: Vec<u8> = (0..8_000_000u32).map(|i| (i % 249) as u8).collect();
    std::fs::write(&file, &bytes).unwrap();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let mut ssh = sshd.client(pair.at);
            ssh.arg("cat");
            ssh.stdin(std::fs::File::open(&file).unwrap());
            ssh.arg("| sha256sum");
            Process::spawn(ssh)
        })
        .collect();
    let mut here = std::process::Command::new("sha256sum");
    here.stdin(std::fs::File::open(&file).unwrap());
    let wanted = Process::run(here).lines[0].clone();
    for client in clients {
        let ended = client.ended();
        assert!(ended.status.success(), "{}", ended.text());
        assert_eq!(ended.lines[0], wanted);
    }
}

#[test]
fn an_agent_that_is_not_listed_is_not_let_in() {
    let world = World::new();
    let pair = Pair::of(&world, greeter());
    let asks = wants(&world, "db", pair.keys[0]);
    let own = key_of(&asks);
    let third = start(&world, asks);
    let (code, text) = refused(&third, door(&third, "db"));
    assert_eq!(code, Code::PEER_REFUSED.number, "{text}");
    assert!(text.contains(&own.to_string()), "{text}");
    assert!(visit(pair.at), "the one that is listed still is");
}

#[test]
fn another_agent_than_the_one_that_is_meant_is_told_with_both_keys() {
    let world = World::new();
    let other = wants(&world, "db", PublicKey([0; 32]));
    let wrong = key_of(&other);
    let plan = offers(&world, "db", greeter(), Peers::Any);
    let right = key_of(&plan);
    let target = start(&world, plan);
    target.wait_live("db");
    let forwarder = start(&world, wants(&world, "db", wrong));
    let (code, text) = refused(&forwarder, door(&forwarder, "db"));
    assert_eq!(code, Code::WRONG_PEER.number, "{text}");
    assert!(text.contains(&wrong.to_string()) && text.contains(&right.to_string()));
    // Whoever means the right one comes in: everybody may.
    let another = start(&world, wants(&world, "db", right));
    assert!(visit(door(&another, "db")));
}

/// No name, another kind of tunnel, not permitted by the edge's owner: one
/// answer.
#[test]
fn what_an_agent_may_not_have_looks_like_what_there_is_not() {
    let ports = adit_testkit::raw::free_ports(1);
    let doors = format!("tcp_ports = \"{}\"\n", ports[0]);
    let seed = World::new();
    // An identity that the edge's file can name before the edge begins.
    let listed = wants(&seed, "db", PublicKey([0; 32]));
    let own = key_of(&listed);
    let tables = format!("[[agent]]\nkey = \"{own}\"\nforward = [\"other\"]\n");
    let world = World::with_doors(&doors, &tables);
    let plan = offers(&world, "db", greeter(), Peers::Any);
    let right = key_of(&plan);
    let target = start(&world, plan);
    target.wait_live("db");
    let mut plan = AgentPlan::new(&world, "open", greeter());
    plan.settings.tunnels = vec![tcp_tunnel("open", greeter(), None)];
    let open = start(&world, plan);
    open.wait_live("open");
    let mut texts = Vec::new();
    for called in ["nothing", "open"] {
        let agent = start(&world, wants(&world, called, right));
        let (code, text) = refused(&agent, door(&agent, called));
        assert_eq!(code, Code::FORWARD_REFUSED.number);
        texts.push(text.replace(called, "db"));
    }
    let mut plan = wants(&world, "db", right);
    plan.settings.data = listed.settings.data;
    let agent = start(&world, plan);
    texts.push(refused(&agent, door(&agent, "db")).1);
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    let free = start(&world, wants(&world, "db", right));
    assert!(visit(door(&free, "db")));
}

#[test]
fn a_name_that_is_private_has_no_public_door() {
    let world = World::new();
    let _pair = Pair::of(&world, greeter());
    assert_eq!(
        adit_testkit::curl::get(world.http(), "http://db.test/").status,
        404
    );
}

#[test]
fn a_lost_target_resets_who_is_connected_within_a_second() {
    let world = World::new();
    let between = Between::start(world.link());
    let asks = wants(&world, "db", PublicKey([0; 32]));
    let plan = offers(&world, "db", greeter(), Peers::Any).by(&world, between.address);
    let right = key_of(&plan);
    let target = start(&world, plan);
    target.wait_live("db");
    let mut asks = asks;
    asks.settings.forwards[0].peer = right;
    let forwarder = start(&world, asks);
    let mut visitor = Socket::dial(door(&forwarder, "db"));
    visitor.until("\n");
    between.close(true);
    let begun = Instant::now();
    between.cut();
    assert_eq!(visitor.rest(), (Vec::new(), false));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_lost_edge_resets_who_is_connected_and_serves_again_when_it_is_back() {
    let mut world = World::new();
    let pair = Pair::of(&world, greeter());
    let mut visitor = Socket::dial(pair.at);
    visitor.until("\n");
    let begun = Instant::now();
    let ended = std::thread::spawn(move || {
        let rest = visitor.rest();
        (rest, begun.elapsed())
    });
    world.stop_edge();
    let (rest, _) = ended.join().unwrap();
    assert_eq!(rest, (Vec::new(), false));
    world.start_edge();
    until_true("it is reached again", || {
        let mut greeting = [0; 6];
        let socket = std::net::TcpStream::connect(pair.at).unwrap();
        let read = std::io::Read::read_exact(&mut &socket, &mut greeting);
        read.is_ok() && greeting == *b"hello\n"
    });
}

#[test]
fn a_service_that_is_down_resets_who_asks() {
    let world = World::new();
    let pair = Pair::of(&world, nobody());
    let (code, _) = refused(&pair.forwarder, pair.at);
    // The connection may break before anything else is known of it.
    assert_eq!(code, Code::FORWARD_REFUSED.number);
}

#[test]
fn five_hundred_connections_at_once() {
    let world = World::new();
    let pair = Pair::of(&world, greeter());
    let mut open = Vec::new();
    for batch in 0..10 {
        let at = pair.at;
        let dialled: Vec<_> = (0..50)
            .map(|_| std::thread::spawn(move || Socket::dial(at)))
            .collect();
        for one in dialled {
            let mut socket = one.join().unwrap();
            assert_eq!(socket.until("\n"), b"hello\n", "batch {batch}");
            open.push(socket);
        }
    }
    assert!(world.metric("adit_private_streams_open") >= 500.0);
    for mut socket in open {
        socket.send("x");
        socket.finish();
        assert_eq!(socket.rest(), (b"xbye\n".to_vec(), true));
    }
}

#[test]
fn a_local_port_that_is_taken_is_told() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut plan = wants(&world, "db", PublicKey([1; 32]));
    plan.settings.forwards[0].listen = taken.local_addr().unwrap();
    let ended = start(&world, plan).ended();
    let error = ended.unwrap_err();
    assert_eq!(error.code(), Code::LISTEN_FAILED);
    assert!(
        error
            .to_string()
            .contains(&taken.local_addr().unwrap().to_string())
    );
}
