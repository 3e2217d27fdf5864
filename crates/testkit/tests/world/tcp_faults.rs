//! TCP tunnels whose sides give up, come back or want what others have.

use std::net::SocketAddr;

use adit_agent::AgentEvent;
use adit_model::Code;
use adit_testkit::between::Between;
use adit_testkit::raw::{Socket, free_ports, origin};
use adit_testkit::wait::until_true;
use adit_testkit::world::{AgentPlan, World};

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn world(ports: &[u16], tables: &str) -> World {
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    World::with_doors(&format!("tcp_ports = \"{}\"\n", ports.join(",")), tables)
}

fn greeter() -> SocketAddr {
    origin(|mut socket: Socket| {
        socket.send("hello\n");
        socket.rest();
    })
}

/// The service says all it has and closes; what comes then cannot arrive, and
/// its visitor must not think that it did.
#[test]
fn what_a_closed_service_cannot_take_is_no_clean_end() {
    let ports = free_ports(1);
    let world = world(&ports, "");
    let closes = origin(|mut socket: Socket| socket.send("all of it"));
    let agent = world.start_agent(AgentPlan::tcp(&world, "closes", closes, None));
    agent.wait_live("closes");
    let mut visitor = Socket::dial(local(ports[0]));
    assert_eq!(visitor.rest(), (b"all of it".to_vec(), true));
    until_true("the visitor's bytes are refused", || {
        std::io::Write::write_all(&mut visitor.stream(), b"more").is_err()
    });
    until_true("it is counted", || {
        world.metric("adit_tcp_streams_open") < 1.0
            && world.metric("adit_tcp_backend_failures_total{reason=\"cut\"}") > 0.0
    });
}

/// Another agent asks for the name, with another port, while its holder's link
/// is lost.
#[test]
fn who_is_refused_a_name_moves_no_port() {
    let ports = free_ports(2);
    let world = world(&ports, "");
    let between = Between::start(world.link());
    let mut plan = AgentPlan::tcp(&world, "db", greeter(), Some(ports[0]));
    plan.settings.tunnels[0].exclusive = true;
    let holder = world.start_agent(plan.by(&world, between.address));
    holder.wait_live("db");
    let told = holder.events().len();
    between.close(true);
    between.cut();
    until_true("the link is gone", || world.metric("adit_links_open") < 1.0);
    let plan = AgentPlan::tcp(&world, "db", greeter(), Some(ports[1]));
    let other = world.start_agent(plan);
    let code = other.wait("a refusal", |event| match event {
        AgentEvent::TunnelRefused { code, .. } => Some(*code),
        _ => None,
    });
    assert_eq!(code, Code::TUNNEL_REFUSED.number);
    other.stop().unwrap();
    between.close(false);
    let url = holder.wait_live_from(told, "db");
    assert_eq!(url, format!("tcp://test:{}", ports[0]));
    Socket::dial(local(ports[0])).until("hello\n");
    assert!(std::net::TcpStream::connect(local(ports[1])).is_err());
}

/// The guest's place outlives a link that is lost for a moment, also where the
/// rule is for every tunnel.
#[test]
fn a_guest_stays_one_when_the_agent_comes_back() {
    let ports = free_ports(1);
    let world = world(&ports, "[[tunnel]]\nname = \"*\"\nguests_only = true\n");
    let between = Between::start(world.link());
    let plan = AgentPlan::tcp(&world, "greet", greeter(), None);
    let agent = world.start_agent(plan.by(&world, between.address));
    agent.wait_live("greet");
    let url = format!("http://{}/_sys/guests", world.api());
    let arguments = [
        "-X",
        "POST",
        "-H",
        "X-Adit-Tunnel: greet",
        "-H",
        "X-Adit-Address: 127.0.0.1",
        "-H",
        "X-Adit-Minutes: 5",
        &url,
    ];
    assert_eq!(
        adit_testkit::curl::request(world.api(), &arguments).status,
        200
    );
    Socket::dial(local(ports[0])).until("hello\n");
    until_true("nobody is inside", || {
        world.metric("adit_connections_open{door=\"tcp\"}") < 1.0
    });
    let told = agent.events().len();
    between.cut();
    agent.wait_live_from(told, "greet");
    Socket::dial(local(ports[0])).until("hello\n");
}
