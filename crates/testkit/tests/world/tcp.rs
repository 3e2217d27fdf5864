//! TCP tunnels: public ports, whatever is spoken on them.

use std::net::{SocketAddr, TcpStream};

use adit_agent::{AgentEvent, By, Carries, ProxyProtocol};
use adit_model::Code;
use adit_testkit::between::Between;
use adit_testkit::curl;
use adit_testkit::nginx::Nginx;
use adit_testkit::process::{Ended, Process};
use adit_testkit::raw::{Socket, free_ports, nobody, origin};
use adit_testkit::sshd::Sshd;
use adit_testkit::wait::until_true;
use adit_testkit::world::{Agent, AgentPlan, World};

/// Greets first, then echoes to the end of what the visitor sends, and says
/// goodbye.
fn greeter(name: &'static str) -> SocketAddr {
    origin(move |mut socket: Socket| {
        socket.send(format!("hello from {name}\n"));
        let (said, clean) = socket.rest();
        if clean {
            socket.send(said);
            socket.send("bye\n");
        }
    })
}

fn world(ports: &[u16], tables: &str) -> World {
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    World::with_doors(&format!("tcp_ports = \"{}\"\n", ports.join(",")), tables)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Visits a greeter: its name.
fn visit(port: u16) -> String {
    let mut visitor = Socket::dial(local(port));
    let greeting = visitor.until("\n");
    let greeting = String::from_utf8_lossy(&greeting).into_owned();
    visitor.send("some words");
    visitor.finish();
    assert_eq!(visitor.rest(), (b"some wordsbye\n".to_vec(), true));
    greeting.trim().replace("hello from ", "")
}

/// Visits and is sent away.
fn is_refused(port: u16) -> bool {
    match TcpStream::connect(local(port)) {
        Err(_) => true,
        Ok(_) => {
            let (said, _) = Socket::dial(local(port)).rest();
            said.is_empty()
        }
    }
}

fn refusal(agent: &Agent) -> (u16, String) {
    agent.wait("a refusal", |event| match event {
        AgentEvent::TunnelRefused { code, text, .. } => Some((*code, text.clone())),
        _ => None,
    })
}

#[test]
fn a_service_that_speaks_first_is_reached_and_each_direction_ends_alone() {
    let ports = free_ports(2);
    let world = world(&ports, "");
    let agent = world.start_agent(AgentPlan::tcp(
        &world,
        "greet",
        greeter("one"),
        Some(ports[1]),
    ));
    assert_eq!(agent.wait_live("greet"), format!("tcp://test:{}", ports[1]));
    for _ in 0..3 {
        assert_eq!(visit(ports[1]), "one");
    }
    assert!(TcpStream::connect(local(ports[0])).is_err());
    until_true("the streams are counted", || {
        world.metric("adit_tcp_streams_total") > 2.0
            && world.metric("adit_tcp_streams_open") < 1.0
            && world.metric("adit_tcp_bytes_total{direction=\"in\"}") > 29.0
    });
    assert!((world.metric("adit_tcp_ports_open") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn much_goes_both_ways_at_once() {
    let ports = free_ports(1);
    let world = world(&ports, "");
    let echo = origin(|socket: Socket| {
        let (mut from, mut to) = (socket.stream(), socket.stream());
        // Ends with the visitor's direction; then so does ours.
        let _ = std::io::copy(&mut from, &mut to);
        socket.finish();
    });
    let agent = world.start_agent(AgentPlan::tcp(&world, "echo", echo, None));
    agent.wait_live("echo");
    let many: Vec<_> = (0..8u8)
        .map(|n| {
            let port = ports[0];
            std::thread::spawn(move || {
                let visitor = Socket::dial(local(port));
                let sent: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8 ^ n).collect();
                let writer = visitor.stream().try_clone().unwrap();
                let to_send = sent.clone();
                let sending = std::thread::spawn(move || {
                    std::io::Write::write_all(&mut &writer, &to_send).unwrap();
                    writer.shutdown(std::net::Shutdown::Write).unwrap();
                });
                let mut visitor = visitor;
                let (came, clean) = visitor.rest();
                sending.join().unwrap();
                assert!(clean);
                assert!(came == sent, "{n}: {} of {}", came.len(), sent.len());
            })
        })
        .collect();
    for one in many {
        one.join().unwrap();
    }
}

#[test]
fn agents_share_a_port_and_replace_each_other() {
    let ports = free_ports(1);
    let world = world(&ports, "");
    let live = |target| {
        let plan = AgentPlan::tcp(&world, "greet", target, Some(ports[0]));
        let agent = world.start_agent(plan);
        agent.wait_live("greet");
        agent
    };
    let first = live(greeter("one"));
    let _second = live(greeter("two"));
    let mut names: Vec<_> = (0..4).map(|_| visit(ports[0])).collect();
    names.sort();
    assert_eq!(names, ["one", "one", "two", "two"]);
    first.stop().unwrap();
    assert!((0..3).all(|_| visit(ports[0]) == "two"));
    // A dead service costs no visitor anything while another agent is there.
    let _dead = live(nobody());
    assert!((0..4).all(|_| visit(ports[0]) == "two"));
}

#[test]
fn a_visitor_waits_for_an_agent_that_comes_back() {
    let ports = free_ports(1);
    let world = world(&ports, "");
    let between = Between::start(world.link());
    let plan = AgentPlan::tcp(&world, "greet", greeter("one"), Some(ports[0]));
    let agent = world.start_agent(plan.by(&world, between.address));
    agent.wait_live("greet");
    // The port stays open while the agent cannot be reached.
    between.close(true);
    between.cut();
    until_true("the link is gone", || world.metric("adit_links_open") < 1.0);
    let port = ports[0];
    let waiting = std::thread::spawn(move || visit(port));
    between.close(false);
    assert_eq!(waiting.join().unwrap(), "one");
}

#[test]
fn a_lost_agent_resets_its_visitors() {
    let ports = free_ports(1);
    let world = world(&ports, "");
    let between = Between::start(world.link());
    let plan = AgentPlan::tcp(&world, "greet", greeter("one"), None);
    let agent = world.start_agent(plan.by(&world, between.address));
    agent.wait_live("greet");
    let mut visitor = Socket::dial(local(ports[0]));
    visitor.until("\n");
    between.close(true);
    between.cut();
    assert_eq!(visitor.rest(), (Vec::new(), false));
    until_true("the counters are true", || {
        world.metric("adit_tcp_streams_open") < 1.0
            && world.metric("adit_tcp_backend_failures_total{reason=\"cut\"}") > 0.0
    });
}

#[test]
fn a_port_closes_when_its_name_is_free() {
    let ports = free_ports(2);
    let world = world(&ports, "[link]\ngrace_seconds = 0\n");
    let plan = |name, port| AgentPlan::tcp(&world, name, greeter("one"), Some(port));
    let agent = world.start_agent(plan("greet", ports[0]));
    agent.wait_live("greet");
    agent.stop().unwrap();
    until_true("the port is closed", || {
        TcpStream::connect(local(ports[0])).is_err()
    });
    // Another name may have it, and the name another port.
    let other = world.start_agent(plan("other", ports[0]));
    other.wait_live("other");
    let moved = world.start_agent(plan("greet", ports[1]));
    moved.wait_live("greet");
    assert_eq!(
        (visit(ports[0]), visit(ports[1])),
        ("one".into(), "one".into())
    );
}

#[test]
fn a_port_that_cannot_be_had_is_told_with_its_reason() {
    let ports = free_ports(3);
    let world = world(&ports[..2], "");
    let target = greeter("one");
    let held = world.start_agent(AgentPlan::tcp(&world, "greet", target, Some(ports[0])));
    held.wait_live("greet");
    let theirs = std::net::TcpListener::bind(local(ports[1])).unwrap();
    for (name, port, words) in [
        ("other", Some(ports[0]), "belongs to another tunnel"),
        ("greet", Some(ports[1]), "has port"),
        ("other", Some(ports[2]), "is not among those"),
        ("other", Some(ports[1]), "cannot be opened on the edge"),
        ("other", None, "cannot be opened on the edge"),
    ] {
        let agent = world.start_agent(AgentPlan::tcp(&world, name, target, port));
        let (code, text) = refusal(&agent);
        assert_eq!(code, Code::PORT_REFUSED.number, "{text}");
        assert!(text.contains(words), "{words}: {text}");
    }
    drop(theirs);
    let none = World::new();
    let agent = none.start_agent(AgentPlan::tcp(&none, "greet", target, None));
    assert_eq!(refusal(&agent).0, Code::TUNNEL_KIND.number);
}

#[test]
fn a_name_is_of_one_kind() {
    let ports = free_ports(1);
    let world = world(&ports, "");
    let target = greeter("one");
    let agent = world.start_agent(AgentPlan::tcp(&world, "app", target, None));
    agent.wait_live("app");
    assert_eq!(curl::get(world.http(), "http://app.test/").status, 404);
    let other = world.start_agent(AgentPlan::new(&world, "app", target));
    let (code, text) = refusal(&other);
    assert_eq!(code, Code::TUNNEL_REFUSED.number);
    assert!(text.contains("another kind"), "{text}");
}

#[test]
fn a_service_that_is_down_resets_its_visitors_and_tells_its_owner() {
    let ports = free_ports(1);
    let world = world(&ports, "");
    let agent = world.start_agent(AgentPlan::tcp(&world, "greet", nobody(), None));
    agent.wait_live("greet");
    let (said, clean) = Socket::dial(local(ports[0])).rest();
    assert_eq!((said, clean), (Vec::new(), false));
    let code = agent.wait("its owner is told", |event| match event {
        AgentEvent::TargetTrouble { code, .. } => Some(*code),
        _ => None,
    });
    assert_eq!(code, Code::TARGET_REFUSED);
}

#[test]
fn a_service_that_breaks_off_is_no_clean_end() {
    let ports = free_ports(1);
    let world = world(&ports, "");
    let breaks = origin(|mut socket: Socket| {
        socket.send("half of it");
        // Closed with bytes unread, which is a reset.
        socket.until("go");
    });
    let agent = world.start_agent(AgentPlan::tcp(&world, "breaks", breaks, None));
    agent.wait_live("breaks");
    let mut visitor = Socket::dial(local(ports[0]));
    visitor.exactly(10);
    visitor.send("go and more");
    assert_eq!(visitor.rest(), (Vec::new(), false));
}

#[test]
fn the_owners_rules_hold_on_ports() {
    for (rule, enters) in [
        (
            "allow = [\"127.0.0.0/8\"]\nbytes_per_second = 1000000",
            true,
        ),
        ("deny = [\"127.0.0.1\"]", false),
    ] {
        let ports = free_ports(1);
        let world = world(&ports, &format!("[[tunnel]]\nname = \"greet\"\n{rule}\n"));
        let plan = AgentPlan::tcp(&world, "greet", greeter("one"), None);
        let agent = world.start_agent(plan);
        agent.wait_live("greet");
        if enters {
            assert_eq!(visit(ports[0]), "one");
        } else {
            assert!(is_refused(ports[0]), "{rule}");
        }
    }
}

#[test]
fn a_tunnel_for_guests_opens_for_whom_the_owner_lets_in() {
    let ports = free_ports(1);
    let rule = "[[tunnel]]\nname = \"greet\"\nguests_only = true\nconnections = 1\n";
    let world = world(&ports, rule);
    let plan = AgentPlan::tcp(&world, "greet", greeter("one"), None);
    let agent = world.start_agent(plan);
    agent.wait_live("greet");
    assert!(is_refused(ports[0]));
    let url = format!("http://{}/_sys/guests", world.api());
    let headers = [
        "X-Adit-Tunnel: greet",
        "X-Adit-Address: 127.0.0.1",
        "X-Adit-Minutes: 5",
    ];
    let mut arguments = vec!["-X", "POST"];
    arguments.extend(headers.iter().flat_map(|header| ["-H", header]));
    arguments.push(&url);
    assert_eq!(curl::request(world.api(), &arguments).status, 200);
    assert_eq!(visit(ports[0]), "one");
    // One at a time.
    until_true("the visitor is gone", || {
        world.metric("adit_connections_open{door=\"tcp\"}") < 1.0
    });
    let mut first = Socket::dial(local(ports[0]));
    first.until("\n");
    assert!(is_refused(ports[0]));
    drop(first);
    until_true("the place is free", || {
        let (said, _) = {
            let mut next = Socket::dial(local(ports[0]));
            next.finish();
            next.rest()
        };
        said.starts_with(b"hello")
    });
}

#[test]
fn a_balancer_in_front_of_a_port_announces_its_visitors() {
    let ports = free_ports(1);
    let doors = format!(
        "tcp_ports = \"{}\"\nproxy_protocol = [\"127.0.0.0/8\"]\n",
        ports[0]
    );
    let world = World::with_doors(
        &doors,
        "[[tunnel]]\nname = \"*\"\nallow = [\"192.0.2.0/24\"]\n",
    );
    let plan = AgentPlan::tcp(&world, "greet", greeter("one"), None);
    let agent = world.start_agent(plan);
    agent.wait_live("greet");
    let announced = |address: &str| {
        let line = format!("PROXY TCP4 {address} 127.0.0.1 4660 {}\r\n", ports[0]);
        let mut visitor = Socket::send_to(local(ports[0]), line);
        visitor.finish();
        visitor.rest().0
    };
    assert_eq!(announced("192.0.2.7"), b"hello from one\nbye\n");
    assert_eq!(announced("198.51.100.7"), b"");
}

/// Real OpenSSH, which checks each byte.
#[test]
fn ssh_goes_through_a_port() {
    let (ports, sshd) = (free_ports(1), Sshd::start());
    let world = world(&ports, "");
    let agent = world.start_agent(AgentPlan::tcp(&world, "ssh", sshd.address, None));
    agent.wait_live("ssh");
    let file = world.folder("sent");
    let bytes: Vec<u8> = (0..8_000_000u32).map(|i| (i % 249) as u8).collect();
    std::fs::write(&file, &bytes).unwrap();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let mut ssh = sshd.client(local(ports[0]));
            ssh.arg("sha256sum; echo done");
            ssh.stdin(std::fs::File::open(&file).unwrap());
            Process::spawn(ssh)
        })
        .collect();
    let mut sums = Vec::new();
    for client in clients {
        let ended = client.ended();
        assert!(ended.status.success(), "{}", ended.text());
        assert_eq!(ended.lines.last().map(String::as_str), Some("done"));
        sums.push(ended.lines[0].clone());
    }
    let mut here = std::process::Command::new("sha256sum");
    here.stdin(std::fs::File::open(&file).unwrap());
    let wanted = Process::run(here).lines[0].clone();
    assert!(sums.iter().all(|sum| *sum == wanted), "{sums:?} {wanted}");
}

#[test]
fn a_service_is_told_its_visitors_address() {
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        let ports = free_ports(1);
        let world = world(&ports, "");
        let say =
            "location / { return 200 \"$proxy_protocol_addr to $proxy_protocol_server_port\"; }";
        let nginx = Nginx::listening("proxy_protocol", say);
        let mut plan = AgentPlan::tcp(&world, "web", nginx.address, None);
        let Carries::Bytes { proxy_protocol, .. } = &mut plan.settings.tunnels[0].carries else {
            panic!("a TCP tunnel")
        };
        *proxy_protocol = Some(version);
        let agent = world.start_agent(plan);
        agent.wait_live("web");
        let reply = curl::get(local(ports[0]), "http://web.test/");
        assert_eq!(
            reply.body,
            format!("127.0.0.1 to {}", ports[0]),
            "{version:?}"
        );
    }
}

/// The edge has neither key nor certificate: curl trusts the service's own.
#[test]
fn tls_is_passed_on_by_the_name_it_asks_for() {
    let route = "[[route]]\nhost = \"www.other.test\"\nagents = \"two\"\n";
    let world = World::with_doors("tls = \"127.0.0.1:0\"\n", route);
    let door = world.facts().tls.unwrap();
    let made: Vec<_> = [("one", "one.test"), ("two", "www.other.test")]
        .map(|(name, host)| {
            let key = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
            let (cert, private) = (
                world.folder(&format!("{name}.pem")),
                world.folder(&format!("{name}.key")),
            );
            std::fs::write(&cert, key.cert.pem()).unwrap();
            std::fs::write(&private, key.signing_key.serialize_pem()).unwrap();
            let directives = format!(
                "ssl_certificate {}; ssl_certificate_key {}; location / {{ return 200 \"{name}\"; }}",
                cert.display(),
                private.display()
            );
            let nginx = Nginx::listening("ssl", &directives);
            let mut plan = AgentPlan::tcp(&world, name, nginx.address, None);
            let Carries::Bytes { by, .. } = &mut plan.settings.tunnels[0].carries else {
                panic!("bytes")
            };
            *by = By::TlsName;
            let agent = world.start_agent(plan);
            let url = agent.wait_live(name);
            assert_eq!(url, format!("https://{name}.test:{}", door.port()));
            (nginx, agent, cert)
        })
        .into();
    let ask = |host: &str, cert: &std::path::Path| {
        let url = format!("https://{host}/");
        let trusted = cert.display().to_string();
        curl::attempt(door, &["--cacert", &trusted, &url])
    };
    let said = |ended: &Ended, word: &str| {
        ended.status.success() && ended.lines.last().is_some_and(|line| line == word)
    };
    let one = ask("one.test", &made[0].2);
    assert!(said(&one, "one"), "{}", one.text());
    let two = ask("www.other.test", &made[1].2);
    assert!(said(&two, "two"), "{}", two.text());
    // Another name, no name, no TLS: nothing is said.
    assert!(!ask("three.test", &made[0].2).status.success());
    assert!(!ask("127.0.0.1", &made[0].2).status.success());
    let (answer, _) = Socket::send_to(door, "GET / HTTP/1.1\r\nHost: one.test\r\n\r\n").rest();
    assert_eq!(answer, b"");
    // What speaks plain HTTP does not get there by the same name.
    assert_eq!(curl::get(world.http(), "http://one.test/").status, 404);
}
