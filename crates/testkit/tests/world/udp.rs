//! UDP tunnels: datagrams of public ports, a flow for each visitor.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit_agent::{AgentEvent, AllowedTargets};
use adit_model::Code;
use adit_testkit::datagrams::{Answerer, Speaker, free_udp_ports};
use adit_testkit::dns::{self, Dnsmasq, dig};
use adit_testkit::wait::until_true;
use adit_testkit::world::{Agent, AgentPlan, World};

/// Long enough for an answer that comes, short enough to wait for one that
/// does not.
const SOON: Duration = Duration::from_millis(300);

fn world(ports: &[u16], doors: &str, tables: &str) -> World {
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    let ports = format!("udp_ports = \"{}\"\n{doors}", ports.join(","));
    World::with_doors(&ports, tables)
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn live(world: &World, name: &str, target: SocketAddr, port: u16) -> Agent {
    let agent = world.start_agent(AgentPlan::udp(world, name, target, Some(port)));
    agent.wait_live(name);
    agent
}

fn refusal(agent: &Agent) -> (u16, String) {
    agent.wait("a refusal", |event| match event {
        AgentEvent::TunnelRefused { code, text, .. } => Some((*code, text.clone())),
        _ => None,
    })
}

fn trouble(agent: &Agent, wanted: Code) -> String {
    agent.wait("trouble with the target", |event| match event {
        AgentEvent::TargetTrouble { code, why, .. } if *code == wanted => Some(why.clone()),
        _ => None,
    })
}

fn drops(world: &World, reason: &str) -> f64 {
    world.metric(&format!("adit_udp_drops_total{{reason=\"{reason}\"}}"))
}

fn flows_open(world: &World) -> f64 {
    world.metric("adit_udp_flows_open")
}

#[test]
fn a_real_dns_server_is_asked_through_a_tunnel() {
    let ports = free_udp_ports(2);
    let world = world(&ports, "", "");
    let server = Dnsmasq::start();
    let plan = AgentPlan::udp(&world, "dns", server.address, Some(ports[1]));
    let agent = world.start_agent(plan);
    assert_eq!(agent.wait_live("dns"), format!("udp://test:{}", ports[1]));
    let door = local(ports[1]);
    for _ in 0..5 {
        assert_eq!(dig(door, &[dns::NAME.0]), dns::NAME.1);
    }
    let long = dig(
        door,
        &[dns::LONG, "TXT", "+notcp", "+bufsize=4096", "+ignore"],
    );
    assert_eq!(long.matches('x').count(), 2500, "{long}");
    until_true("all is counted", || {
        world.metric("adit_udp_flows_total") > 5.0
            && world.metric("adit_udp_datagrams_total{direction=\"out\"}") > 5.0
            && world.metric("adit_udp_bytes_total{direction=\"out\"}") > 2500.0
    });
    assert!((world.metric("adit_udp_ports_open") - 1.0).abs() < f64::EPSILON);
    // What nobody asked for is not open.
    assert_eq!(Speaker::to(local(ports[0])).heard(SOON), None);
}

#[test]
fn each_visitor_has_a_flow_and_a_socket_of_its_own() {
    let ports = free_udp_ports(1);
    let world = world(
        &ports,
        "",
        "[udp]\nanswered_seconds = 1\nidle_seconds = 2\n",
    );
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let ports_seen = Arc::clone(&seen);
    let service = Answerer::at(local(0), move |said, port| {
        ports_seen.lock().unwrap().insert(port);
        vec![said.to_vec(), Vec::new()]
    });
    let agent = live(&world, "echo", service.address, ports[0]);
    let visitors: Vec<_> = (0..100).map(|_| Speaker::to(local(ports[0]))).collect();
    for round in 0..3 {
        for (number, visitor) in visitors.iter().enumerate() {
            visitor.say(format!("{round} {number}").as_bytes());
        }
        for (number, visitor) in visitors.iter().enumerate() {
            let said = visitor.heard(Duration::from_secs(10)).unwrap();
            assert_eq!(said, format!("{round} {number}").as_bytes());
            assert_eq!(visitor.heard(Duration::from_secs(10)).unwrap(), b"");
        }
    }
    assert_eq!(seen.lock().unwrap().len(), 100);
    assert!((flows_open(&world) - 100.0).abs() < f64::EPSILON);
    // Silence ends them, and their channels serve others.
    until_true("all flows are over", || flows_open(&world) < 1.0);
    until_true("the agent's too", || {
        agent.events().iter().rev().any(|event| match event {
            AgentEvent::Visitor(visitor) => visitor.open == 0 && visitor.ever == 100,
            _ => false,
        })
    });
    let channels = world.metric("adit_channels_total");
    assert_eq!(visitors[0].ask(b"again"), b"again");
    until_true("a used channel was taken", || {
        world.metric("adit_channels_recycled_total") > 0.0
    });
    assert!((world.metric("adit_channels_total") - channels).abs() < f64::EPSILON);
}

#[test]
fn the_flows_of_a_port_are_bounded_and_the_old_ones_go_on() {
    let ports = free_udp_ports(1);
    let world = world(&ports, "", "[udp]\nflows_per_port = 3\n");
    let service = Answerer::echo("");
    let _agent = live(&world, "echo", service.address, ports[0]);
    let three: Vec<_> = (0..3).map(|_| Speaker::to(local(ports[0]))).collect();
    for visitor in &three {
        assert_eq!(visitor.ask(b"one"), b"one");
    }
    let fourth = Speaker::to(local(ports[0]));
    fourth.say(b"too many");
    until_true("it is dropped", || drops(&world, "flows") > 0.0);
    assert_eq!(fourth.heard(SOON), None);
    for visitor in &three {
        assert_eq!(visitor.ask(b"two"), b"two");
    }
    assert!((flows_open(&world) - 3.0).abs() < f64::EPSILON);
}

#[test]
fn large_datagrams_go_whole_and_larger_ones_are_dropped_and_told() {
    let ports = free_udp_ports(1);
    // What an IPv6 visitor may send is more than IPv4 takes.
    let world = world(&ports, "udp_bind = \"::1\"\n", "");
    let service = Answerer::at(local(0), |said, _| {
        vec![
            format!(
                "{} {}",
                said.len(),
                said.iter().map(|b| u32::from(*b)).sum::<u32>()
            )
            .into(),
        ]
    });
    let agent = live(&world, "size", service.address, ports[0]);
    let visitor = Speaker::to((Ipv6Addr::LOCALHOST, ports[0]).into());
    for size in [0, 1, 1500, 60_000, 65_507] {
        let want = format!("{size} {}", size * 3);
        assert_eq!(visitor.ask(&vec![3; size]), want.as_bytes());
    }
    assert!(visitor.say(&[3; 65_508]));
    let why = trouble(&agent, Code::DATAGRAM_TOO_LARGE);
    assert!(why.contains("larger than its network takes"), "{why}");
    // The flow has lost one datagram and nothing else.
    assert_eq!(visitor.ask(b"abc"), b"3 294");
    assert!((world.metric("adit_udp_flows_total") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn an_answer_that_its_visitor_cannot_get_is_counted() {
    let ports = free_udp_ports(1);
    let world = world(&ports, "", "");
    let service = Answerer::at((Ipv6Addr::LOCALHOST, 0).into(), |said, _| {
        let size = String::from_utf8_lossy(said).parse().unwrap_or(0);
        vec![vec![7; size]]
    });
    let _agent = live(&world, "size", service.address, ports[0]);
    let visitor = Speaker::to(local(ports[0]));
    assert_eq!(visitor.ask(b"65507").len(), 65_507);
    visitor.say(b"65508");
    until_true("it is dropped", || drops(&world, "too_large") > 0.0);
    assert_eq!(visitor.ask(b"5").len(), 5);
}

#[test]
fn rules_hold_for_flows() {
    let ports = free_udp_ports(4);
    let tables = "[udp]\nidle_seconds = 1\n\
         [[tunnel]]\nname = \"denied\"\ndeny = [\"127.0.0.2\"]\n\
         [[tunnel]]\nname = \"few\"\nconnections_per_address = 1\n\
         [[tunnel]]\nname = \"guests\"\nguests_only = true\n\
         [[tunnel]]\nname = \"slow\"\nbytes_per_second = 20000\n";
    let world = world(&ports, "", tables);
    let service = Answerer::echo("");
    let names = ["denied", "few", "guests", "slow"];
    let agents = names.iter().zip(&ports);
    let _agents: Vec<_> = agents
        .map(|(name, port)| live(&world, name, service.address, *port))
        .collect();
    let other = IpAddr::from([127, 0, 0, 2]);
    let denied = Speaker::from(other, local(ports[0]));
    denied.say(b"hello");
    assert_eq!(denied.heard(SOON), None);
    assert_eq!(Speaker::to(local(ports[0])).ask(b"hello"), b"hello");

    let one = Speaker::to(local(ports[1]));
    assert_eq!(one.ask(b"one"), b"one");
    let two = Speaker::to(local(ports[1]));
    two.say(b"two");
    assert_eq!(two.heard(SOON), None);
    assert_eq!(
        Speaker::from(other, local(ports[1])).ask(b"three"),
        b"three"
    );
    // The place is free when the flow is over.
    assert_eq!(two.ask(b"two"), b"two");

    let stranger = Speaker::to(local(ports[2]));
    stranger.say(b"hello");
    assert_eq!(stranger.heard(SOON), None);
    assert!(drops(&world, "rule") > 2.0);
    for reason in ["address", "address_full", "not_guest"] {
        let metric = format!("adit_tunnel_refusals_total{{reason=\"{reason}\"}}");
        assert!(world.metric(&metric) > 0.0, "{reason}");
    }

    // What is above the rate is lost, and counted.
    let fast = Speaker::to(local(ports[3]));
    let begun = std::time::Instant::now();
    for _ in 0..300 {
        fast.say(&[1; 1000]);
    }
    let mut heard = 0;
    while fast.heard(Duration::from_secs(1)).is_some() {
        heard += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    assert!(
        f64::from(heard) < 30.0 + 20.0 * seconds,
        "{heard} in {seconds}"
    );
    assert!(drops(&world, "queue") > 100.0);
}

#[test]
fn a_service_that_is_not_there_is_told_and_found_when_it_comes() {
    let ports = free_udp_ports(2);
    let world = world(&ports[..1], "", "");
    let target = local(ports[1]);
    let agent = live(&world, "late", target, ports[0]);
    let visitor = Speaker::to(local(ports[0]));
    visitor.say(b"anybody");
    let why = trouble(&agent, Code::TARGET_REFUSED);
    assert!(why.contains(&target.to_string()), "{why}");
    until_true("the edge counts it", || {
        world.metric("adit_udp_backend_failures_total{reason=\"cut\"}")
            + world.metric("adit_udp_backend_failures_total{reason=\"unreachable\"}")
            > 0.0
    });
    // The visitor asks on; channels are not dialled for each of its questions.
    let before = world.metric("adit_streams_total");
    for _ in 0..100 {
        visitor.say(b"anybody");
    }
    until_true("they are dropped", || drops(&world, "no_backend") > 50.0);
    assert!(world.metric("adit_streams_total") - before < 5.0);
    let service = Answerer::at(target, |_, _| vec![b"here".to_vec()]);
    assert_eq!(visitor.ask(b"anybody"), b"here");
    drop(service);
}

#[test]
fn a_name_with_several_addresses_is_asked_at_each() {
    let ports = free_udp_ports(1);
    let world = world(&ports, "", "");
    // `localhost` is both families; the service has one.
    let service = Answerer::at((Ipv6Addr::LOCALHOST, 0).into(), |said, _| {
        vec![said.to_vec()]
    });
    let mut plan = AgentPlan::udp(&world, "six", service.address, Some(ports[0]));
    let target = format!("localhost:{}", service.address.port());
    if let adit_agent::Carries::Datagrams { target: to, .. } = &mut plan.settings.tunnels[0].carries
    {
        *to = target.parse().unwrap();
    }
    let agent = world.start_agent(plan);
    agent.wait_live("six");
    for _ in 0..3 {
        let visitor = Speaker::to(local(ports[0]));
        visitor.say(b"hello");
        // Nothing is lost: it is not asked again.
        assert_eq!(visitor.heard(Duration::from_secs(10)).unwrap(), b"hello");
    }
}

#[test]
fn a_target_that_the_agent_forbids_is_never_asked() {
    let ports = free_udp_ports(1);
    let world = world(&ports, "", "");
    let service = Answerer::echo("");
    let mut plan = AgentPlan::udp(&world, "no", service.address, Some(ports[0]));
    plan.settings.allowed_targets = AllowedTargets::only(vec!["10.0.0.0/8".parse().unwrap()]);
    let agent = world.start_agent(plan);
    agent.wait_live("no");
    let visitor = Speaker::to(local(ports[0]));
    visitor.say(b"hello");
    let why = trouble(&agent, Code::TARGET_FORBIDDEN);
    assert!(why.contains("allowed_targets"), "{why}");
    assert_eq!(visitor.heard(SOON), None);
}

#[test]
fn flows_stick_to_an_agent_and_move_when_it_goes() {
    let ports = free_udp_ports(1);
    let world = world(&ports, "", "");
    let (one, two) = (Answerer::echo("one "), Answerer::echo("two "));
    let first = live(&world, "echo", one.address, ports[0]);
    let second = live(&world, "echo", two.address, ports[0]);
    let visitors: Vec<_> = (0..8).map(|_| Speaker::to(local(ports[0]))).collect();
    let asked = |visitor: &Speaker| {
        let said = String::from_utf8(visitor.ask(b"x")).unwrap();
        said[..3].to_owned()
    };
    let names: Vec<_> = visitors.iter().map(asked).collect();
    let of_one = names.iter().filter(|name| *name == "one").count();
    assert_eq!(of_one, 4, "{names:?}");
    assert_eq!(visitors.iter().map(asked).collect::<Vec<_>>(), names);
    let begun = std::time::Instant::now();
    first.stop().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "flows keep no agent"
    );
    assert!(visitors.iter().map(asked).all(|name| name == "two"));
    // Nobody is there for a moment: the port waits for its name's agent.
    drop(second);
    let again = live(&world, "echo", one.address, ports[0]);
    assert!(visitors.iter().map(asked).all(|name| name == "one"));
    drop(again);
}

#[test]
fn an_answer_leaves_from_the_address_that_was_asked() {
    for (bind, addresses) in [
        (
            "0.0.0.0",
            vec![[127, 0, 0, 1].into(), [127, 0, 0, 3].into()],
        ),
        (
            "::",
            vec![
                IpAddr::from([127, 0, 0, 3]),
                Ipv6Addr::LOCALHOST.into(),
                [127, 0, 0, 1].into(),
            ],
        ),
    ] {
        let ports = free_udp_ports(1);
        let world = world(&ports, &format!("udp_bind = \"{bind}\"\n"), "");
        let service = Answerer::echo("");
        let _agent = live(&world, "echo", service.address, ports[0]);
        for address in addresses {
            // A connected socket hears nobody else.
            let visitor = Speaker::to((address, ports[0]).into());
            assert_eq!(visitor.ask(b"hello"), b"hello", "{bind} {address}");
            assert_eq!(visitor.ask(&[5; 60_000]).len(), 60_000, "{bind} {address}");
        }
    }
}

#[test]
fn ports_are_given_and_taken_as_those_of_tcp() {
    let ports = free_udp_ports(4);
    let range = format!("{},{},{}", ports[0], ports[1], ports[2]);
    let doors = format!("udp_ports = \"{range}\"\ntcp_ports = \"{}\"\n", ports[0]);
    let world = World::with_doors(&doors, "[link]\ngrace_seconds = 0\n");
    let service = Answerer::echo("");
    let plan = |name: &str, port| AgentPlan::udp(&world, name, service.address, port);
    let first = live(&world, "one", service.address, ports[0]);
    assert_eq!(Speaker::to(local(ports[0])).ask(b"x"), b"x");
    // Another name, a port outside, and one of another program.
    let taken = world.start_agent(plan("two", Some(ports[0])));
    let (code, text) = refusal(&taken);
    assert_eq!(code, Code::PORT_REFUSED.number);
    assert!(text.contains("belongs to another tunnel"), "{text}");
    let outside = world.start_agent(plan("three", Some(ports[3])));
    let (code, text) = refusal(&outside);
    assert_eq!(code, Code::PORT_REFUSED.number);
    assert!(text.contains("is not among those"), "{text}");
    let foreign = UdpSocket::bind(local(ports[1])).unwrap();
    let busy = world.start_agent(plan("four", Some(ports[1])));
    let (code, text) = refusal(&busy);
    assert_eq!(code, Code::PORT_REFUSED.number);
    assert!(text.contains("cannot be opened on the edge"), "{text}");
    drop(foreign);
    // TCP may have the same number; the edge chooses where nobody does.
    let tcp = world.start_agent(AgentPlan::tcp(
        &world,
        "tcp",
        service.address,
        Some(ports[0]),
    ));
    assert_eq!(tcp.wait_live("tcp"), format!("tcp://test:{}", ports[0]));
    let any = world.start_agent(plan("any", None));
    let url = any.wait_live("any");
    assert!(
        [ports[1], ports[2]]
            .iter()
            .any(|port| url == format!("udp://test:{port}")),
        "{url}"
    );
    // With the name's end its port is somebody else's.
    first.stop().unwrap();
    until_true("the port is closed", || {
        UdpSocket::bind(local(ports[0])).is_ok()
    });
    let next = live(&world, "five", service.address, ports[0]);
    assert_eq!(Speaker::to(local(ports[0])).ask(b"y"), b"y");
    drop(next);
}

#[test]
fn an_edge_without_udp_ports_says_so() {
    let world = World::new();
    let agent = world.start_agent(AgentPlan::udp(&world, "dns", local(9), None));
    let (code, text) = refusal(&agent);
    assert_eq!(code, Code::TUNNEL_KIND.number);
    assert_eq!(text, "this edge opens no ports for UDP tunnels");
}
