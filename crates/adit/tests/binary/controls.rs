//! What an owner relies on at every door: bans that hold, and counters that
//! stay true whatever happens to agents.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use adit_testkit::counters::metric;
use adit_testkit::datagrams::{Answerer, Speaker, free_udp_ports};
use adit_testkit::network::{End, Network};
use adit_testkit::raw::{Socket, free_ports, origin};
use adit_testkit::tls;
use adit_testkit::wait::{until, until_true};
use serde_json::Value;

use crate::lab::{Edge, Lab, Running, get};
use crate::networks::inside;

/// Says hello, then gives everything back.
fn greeter() -> SocketAddr {
    origin(|mut socket: Socket| {
        socket.send("hello\n");
        socket.echo();
    })
}

/// Answers requests, those for `/long` never to the end.
fn web() -> SocketAddr {
    origin(|mut socket: Socket| {
        while let Some(head) = socket.next_head() {
            if head.starts_with("GET /long ") {
                socket.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello\n");
                socket.rest();
            } else {
                socket.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n");
            }
        }
    })
}

/// The tunnels of an agent, one of each kind.
fn client(lab: &Lab, [http, bytes, datagrams]: [SocketAddr; 3], ports: [u16; 2]) {
    let [tcp, udp] = ports;
    lab.file(
        "client.toml",
        &format!(
            "[agent]\ndata = \"serving\"\n\
             [[tunnel]]\nname = \"http\"\ntarget = \"{http}\"\n\
             [[tunnel]]\nname = \"tcp\"\nkind = \"tcp\"\ntarget = \"{bytes}\"\nport = {tcp}\n\
             [[tunnel]]\nname = \"tls\"\nkind = \"tls\"\ntarget = \"{bytes}\"\n\
             [[tunnel]]\nname = \"udp\"\nkind = \"udp\"\ntarget = \"{datagrams}\"\nport = {udp}\n\
             [[tunnel]]\nname = \"private\"\nkind = \"private\"\ntarget = \"{bytes}\"\npeers = [\"*\"]\n"
        ),
    );
}

const NAMES: [&str; 5] = ["http", "tcp", "tls", "udp", "private"];

fn key(lab: &Lab, who: &str) -> String {
    let said = lab.run(&["key", "show", "--data", &lab.text_of(who)]);
    said.done().trim().to_owned()
}

// ----- bans

const LOCAL: u16 = 7777;
/// Whoever answers from there is reached.
const DOORS: [&str; 6] = ["http", "https", "tcp", "tls", "udp", "private"];

/// An edge, an agent at home, and two ends with visitors and an agent each.
struct Far {
    lab: Lab,
    network: Network,
    _edge: Running,
    agents: Vec<Running>,
}

impl Far {
    fn new() -> Self {
        let lab = Lab::new();
        let network = Network::new(&["home", "edge", "bad", "good"]);
        let at = network.end("edge").address();
        lab.file(
            "server.toml",
            &format!(
                "[doors]\nhttp = \"{at}:80\"\nhttps = \"{at}:443\"\ntls = \"{at}:444\"\n\
                 link = \"{at}:7400\"\napi = \"127.0.0.1:9090\"\n\
                 tcp_ports = \"2222\"\ntcp_bind = \"0.0.0.0\"\n\
                 udp_ports = \"5353\"\nudp_bind = \"0.0.0.0\"\n\
                 [limits]\nproofs_before_ban = 3\n\
                 [server]\ndomain = \"test\"\ndata = \"edge\"\nworkers = 2\n"
            ),
        );
        let words = ["server", "--config", "server.toml"];
        let edge = inside(&lab, network.end("edge"), &words, &[]);
        edge.line("ready");
        let mut far = Self {
            lab,
            network,
            _edge: edge,
            agents: Vec::new(),
        };
        let home = far.network.end("home");
        let (web, bytes) = home.inside(|| (web(), greeter()));
        // It has to answer as long as the test runs.
        let echo = home.inside(|| Answerer::echo(""));
        client(&far.lab, [web, bytes, echo.address], [2222, 5353]);
        std::mem::forget(echo);
        let agent = far.join("home", &["client", "--config", "client.toml"], &[]);
        for name in NAMES {
            agent.live(name);
        }
        far.agents.push(agent);
        for who in ["bad", "good"] {
            let forwarder = far.forward(who, who, LOCAL, &[]);
            forwarder.live("private");
            far.agents.push(forwarder);
        }
        far
    }

    fn end(&self, name: &str) -> &End {
        self.network.end(name)
    }

    fn join(&self, at: &str, words: &[&str], more: &[(&str, &str)]) -> Running {
        let said = |flag| {
            let said = self.lab.run(&["server", flag, "--config", "server.toml"]);
            said.done().trim().to_owned()
        };
        let (join, pin) = (said("--print-join"), said("--print-pin"));
        let own = [("ADIT_EDGE", join.as_str()), ("ADIT_PIN", pin.as_str())];
        inside(&self.lab, self.end(at), words, &[&own, more].concat())
    }

    fn forward(&self, at: &str, data: &str, port: u16, more: &[(&str, &str)]) -> Running {
        let (listen, peer) = (format!("127.0.0.1:{port}"), key(&self.lab, "serving"));
        let words = ["forward", "private", "--listen", &listen, "--peer", &peer];
        self.join(at, &[&words[..], &["--data", data]].concat(), more)
    }

    fn door(&self, port: u16) -> SocketAddr {
        (self.end("edge").address(), port).into()
    }

    /// The doors that serve who is at this end.
    fn open_to(&self, end: &str) -> Vec<&'static str> {
        // Who is refused is cut, perhaps before it knows that it is in.
        let greets = |at: SocketAddr, first: Vec<u8>, length: usize| {
            let Ok(mut socket) = Socket::try_dial_from(Ipv4Addr::UNSPECIFIED.into(), at) else {
                return false;
            };
            socket.write_all(&first).is_ok() && socket.read_exact(&mut vec![0; length]).is_ok()
        };
        self.end(end).inside(|| {
            let serves = |door: &&str| match *door {
                "http" => get(self.door(80), "http.test", "/").0 == 200,
                "https" => greets(self.door(443), tls::hello("http.test"), 100),
                "tcp" => greets(self.door(2222), Vec::new(), 6),
                "tls" => greets(self.door(444), tls::hello("tls.test"), 6),
                "udp" => {
                    let speaker = Speaker::to(self.door(5353));
                    let mut tries = 0..5;
                    tries.any(|_| speaker.say(b"x") && speaker.heard(SOON).is_some())
                }
                _ => greets(([127, 0, 0, 1], LOCAL).into(), Vec::new(), 6),
            };
            DOORS.into_iter().filter(serves).collect()
        })
    }

    fn metric(&self, name: &str) -> f64 {
        let api = SocketAddr::from(([127, 0, 0, 1], 9090));
        let page = self
            .end("edge")
            .inside(|| get(api, "localhost", "/metrics").1);
        metric(&page, name)
    }

    /// How often somebody was refused because of a ban, in all.
    fn banned(&self) -> f64 {
        let names = [
            "adit_link_proof_failures_total{cause=\"banned\"}",
            "adit_limit_refusals_total{reason=\"banned\"}",
        ];
        names.map(|name| self.metric(name)).iter().sum()
    }
}

const SOON: Duration = Duration::from_millis(300);

/// Whoever guesses at secrets is banned, and then at every door: what it begins
/// is refused, what it says in a flow is dropped, and nobody else notices.
#[test]
fn a_ban_holds_at_every_door_for_its_address_alone() {
    let far = Far::new();
    for end in ["bad", "good"] {
        assert_eq!(far.open_to(end), DOORS, "{end}");
    }
    let bad = far.end("bad");
    let mut before = bad.inside(|| Socket::dial(far.door(2222)));
    before.until("hello\n");
    let flow = bad.inside(|| Speaker::to(far.door(5353)));
    assert_eq!(flow.ask(b"x"), b"x");
    bad.inside(|| {
        for _ in 0..3 {
            // Longer than a first message; the answer is silence.
            drop(Socket::send_to(far.door(7400), vec![7; 1024]));
        }
    });
    until_true("the address is banned", || {
        far.metric("adit_banned_addresses") > 0.0
    });
    assert_eq!(far.open_to("bad"), [""; 0]);
    assert_eq!(far.open_to("good"), DOORS);
    let dropped = "adit_udp_drops_total{reason=\"banned\"}";
    let earlier = far.metric(dropped);
    for _ in 0..3 {
        assert!(flow.say(b"y"));
    }
    until_true("its flow is banned too", || {
        far.metric(dropped) >= earlier + 3.0
    });
    assert_eq!(flow.heard(SOON), None);
    // What was open goes on.
    before.send("more\n");
    assert_eq!(before.until("\n"), b"more\n");
    let links = far.metric("adit_links_open");
    for carrier in ["tcp", "quic", "websocket"] {
        let only = [("ADIT_AGENT_CARRIER", carrier)];
        let refused = far.banned();
        let agent = far.forward("bad", &format!("bad-{carrier}"), 0, &only);
        until_true(&format!("{carrier} is refused"), || far.banned() > refused);
        let said = agent.stop().1.join("\n");
        assert!(!said.contains("connected"), "{carrier}: {said}");
        let agent = far.forward("good", &format!("good-{carrier}"), 0, &only);
        assert!(agent.line("connected ").ends_with(carrier), "{carrier}");
        assert_eq!(agent.stop().0, Some(0));
    }
    until_true("its links are those of before", || {
        far.metric("adit_links_open") <= links
    });
    the_owner_lifts_and_speaks(&far);
}

/// What was banned is open again, and the other one is closed.
fn the_owner_lifts_and_speaks(far: &Far) {
    let ask = |words: &[&str]| {
        let place = ["--config", "server.toml"];
        far.lab.run(&[&["bans"], words, &place].concat())
    };
    let [bad, good] = ["bad", "good"].map(|end| far.end(end).address().to_string());
    let listed = |words: &[&str]| -> Value {
        let said = ask(&[&["list"], words].concat()).done();
        serde_json::from_str(&said).unwrap()
    };
    let status = far.lab.run(&["status", "--config", "server.toml"]).done();
    let last = status.lines().last().unwrap();
    assert!(last.starts_with("1 address is banned, "), "{status}");
    let bans = listed(&["--json"]);
    assert_eq!(
        (&bans[0]["address"], &bans[1]),
        (&bad.as_str().into(), &Value::Null)
    );
    assert!(ask(&["list"]).done().starts_with(&format!("{bad}  ")));
    assert_eq!(
        ask(&["remove", &bad]).done(),
        format!("{bad} is banned no more")
    );
    assert_eq!(
        ask(&["remove", &bad]).done(),
        format!("{bad} was not banned")
    );
    let said = ask(&["add", &good, "--minutes", "5"]).done();
    assert_eq!(said, format!("{good} is banned for 5 min"));
    assert_eq!(far.open_to("bad"), DOORS);
    assert_eq!(far.open_to("good"), [""; 0]);
    ask(&["remove", &good]).done();
    assert_eq!(ask(&["list"]).done(), "no address is banned");
    ask(&["add", "127.0.0.1"]).refused(2, "ADIT-1001", &["127.0.0.1", "never banned"]);
}

// ----- counters

/// An edge, an agent with a tunnel of each kind and one that forwards, on the
/// loopback.
struct Near {
    lab: Lab,
    edge: Edge,
    tls: SocketAddr,
    ports: [u16; 2],
    local: SocketAddr,
    _forwarder: Running,
    _echo: Answerer,
}

/// A visitor of each kind that is there.
struct Visitors {
    streams: Vec<Socket>,
    flow: Speaker,
}

/// An agent is not missed for its silence before a test is over.
const LATE_DEAD: &str = "[link]\nheartbeat_seconds = 30\ndead_seconds = 120\n";

fn start(lab: &Lab, carrier: &str) -> Running {
    let only = [("ADIT_AGENT_CARRIER", carrier)];
    let agent = lab.start(&["client", "--config", "client.toml"], &only);
    assert!(agent.line("connected ").ends_with(carrier));
    for name in NAMES {
        agent.live(name);
    }
    agent
}

impl Near {
    fn new(carrier: &str, tables: &str) -> (Self, Running) {
        let lab = Lab::new();
        let ports = [free_ports(1)[0], free_udp_ports(1)[0]];
        let [tcp, udp] = ports.map(|port| port.to_string());
        let doors = [
            ("ADIT_DOORS_TLS", "127.0.0.1:0"),
            ("ADIT_DOORS_HTTPS", "127.0.0.1:0"),
            ("ADIT_DOORS_TCP_PORTS", tcp.as_str()),
            ("ADIT_DOORS_UDP_PORTS", udp.as_str()),
        ];
        let any = ["127.0.0.1:0"; 3].map(str::to_owned);
        let edge = lab.edge_with(&any, &format!("{LATE_DEAD}{tables}"), &doors);
        let tls = edge.running.line("listening tls ").parse().unwrap();
        for who in ["serving", "asking"] {
            lab.join(&edge, who);
        }
        let echo = Answerer::echo("");
        client(&lab, [web(), greeter(), echo.address], ports);
        let agent = start(&lab, carrier);
        let peer = key(&lab, "serving");
        let words = ["forward", "private", "--listen", "127.0.0.1:0"];
        let more = ["--peer", peer.as_str(), "--data", "asking"];
        let forwarder = lab.start(&[&words[..], &more].concat(), &[]);
        let url = forwarder.live("private");
        let near = Self {
            local: url.strip_prefix("tcp://").unwrap().parse().unwrap(),
            lab,
            edge,
            tls,
            ports,
            _forwarder: forwarder,
            _echo: echo,
        };
        (near, agent)
    }

    fn visit(&self) -> Visitors {
        let [tcp, udp] = self.ports.map(|port| ([127, 0, 0, 1], port).into());
        let request = "GET /long HTTP/1.1\r\nHost: http.test\r\n\r\n";
        let mut streams = vec![
            Socket::send_to(self.edge.http, request),
            Socket::dial(tcp),
            Socket::send_to(self.tls, tls::hello("tls.test")),
            Socket::dial(self.local),
        ];
        for stream in &mut streams {
            stream.until("hello\n");
        }
        let flow = Speaker::to(udp);
        assert_eq!(flow.ask(b"x"), b"x");
        Visitors { streams, flow }
    }

    fn metric(&self, name: &str, what: &str) -> u64 {
        let labels = format!("tunnel=\"{name}\",kind=\"{name}\"");
        self.edge.metric(&format!("adit_tunnel_{what}{{{labels}}}")) as u64
    }

    fn status(&self) -> Value {
        let said = self.edge.ask(&self.lab, &["status", "--json"]).done();
        serde_json::from_str(&said).unwrap()
    }

    /// What the status says of each tunnel, and of all.
    fn rows(&self, field: &str) -> Vec<u64> {
        let all = self.status();
        let tunnels = all["tunnels"].as_array().unwrap();
        let of = |name: &&str| {
            let row = tunnels.iter().find(|row| row["name"] == **name);
            row.unwrap_or_else(|| panic!("{name} in {all}"))[field]
                .as_u64()
                .unwrap()
        };
        let mut rows: Vec<_> = NAMES.iter().map(of).collect();
        rows.push(all["totals"][field].as_u64().unwrap());
        rows
    }
}

#[test]
fn a_killed_agents_counters_are_true_and_go_on_when_it_is_back() {
    for carrier in ["tcp", "quic", "websocket"] {
        kill_and_come_back(carrier);
    }
}

fn kill_and_come_back(carrier: &str) {
    let (near, agent) = Near::new(carrier, "");
    let visitors = near.visit();
    // One socket for the control channel, and for each visitor one that is the
    // link's from its proof on.
    let door = if carrier == "tcp" { "link" } else { carrier };
    let sockets = |of| {
        let name = format!("adit_connections_{of}{{door=\"{door}\"}}");
        near.edge.metric(&name) as u64
    };
    let open = sockets("open");
    assert!(open > 0 && sockets("total") >= 6, "{door}: {open}");
    assert_eq!(near.rows("visitors"), [1, 1, 1, 1, 1, 5]);
    // A request counts in all when it has ended.
    assert_eq!(near.rows("requests"), [1, 1, 1, 1, 1, 4]);
    assert_eq!(near.rows("failures"), [0; 6]);
    for (name, out) in NAMES.iter().zip(near.rows("bytes_out")) {
        assert!(out >= if *name == "udp" { 1 } else { 6 }, "{name}");
    }
    drop(agent.process.kill());
    for name in NAMES {
        until_true(&format!("{carrier}: {name} has no visitor"), || {
            near.metric(name, "visitors_open") == 0 && near.metric(name, "agents") == 0
        });
        assert_eq!(near.metric(name, "visitors_total"), 1, "{carrier} {name}");
        assert_eq!(near.metric(name, "failures_total"), 1, "{carrier} {name}");
    }
    until_true(&format!("{door} has their sockets no more"), || {
        sockets("open") < open
    });
    let gone = until("the edge has no visitor", || {
        let all = near.status();
        (all["totals"]["visitors"] == 0).then_some(all)
    });
    assert_eq!(gone["tunnels"], Value::Array(Vec::new()));
    assert_eq!(gone["totals"]["requests"], 5, "{gone}");
    assert_eq!(gone["totals"]["failures"], 5, "{gone}");
    for mut stream in visitors.streams {
        assert!(!stream.rest().1, "it was reset");
    }
    drop(visitors.flow);
    let _agent = start(&near.lab, carrier);
    let _visitors = near.visit();
    assert_eq!(near.rows("visitors"), [1, 1, 1, 1, 1, 5]);
    assert_eq!(near.rows("requests"), [2, 2, 2, 2, 2, 9]);
    assert_eq!(near.rows("failures"), [1, 1, 1, 1, 1, 5]);
}

// ----- lines of the log

/// The lines of visitors of this tunnel.
fn visits(near: &Near, name: &str) -> Vec<Value> {
    let log = near.edge.running.log();
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &Value| line["kind"] == "visit" && line["tunnel"] == *name)
        .collect()
}

#[test]
fn each_visitor_leaves_a_line_that_tells_how_it_ended() {
    let tables = "[log]\nformat = \"json\"\n[udp]\nidle_seconds = 1\n\
         [[tunnel]]\nname = \"tcp\"\nconnections = 1\n";
    let (near, agent) = Near::new("tcp", tables);
    let visitors = near.visit();
    let tcp = ([127, 0, 0, 1], near.ports[0]).into();
    assert_eq!(Socket::dial(tcp).rest(), (Vec::new(), false));
    let refused = until("the refusal is told", || visits(&near, "tcp").pop());
    assert_eq!(refused["fault"], "tunnel has as many visitors as it may");
    assert_eq!(
        (&refused["sent"], &refused["wait_ms"]),
        (&0.into(), &Value::Null)
    );
    // The first one is HTTP's, whose requests have lines of their own.
    for mut stream in visitors.streams.into_iter().skip(1) {
        stream.finish();
        stream.rest();
    }
    let asking = key(&near.lab, "asking");
    let tunnels = [("tcp", 1), ("tls", 0), ("udp", 0), ("private", 0)];
    for (name, before) in tunnels {
        let line = until(&format!("{name} has a line"), || {
            visits(&near, name).get(before).cloned()
        });
        assert_eq!(
            (&line["client"], &line["carries"]),
            (&"127.0.0.1".into(), &name.into())
        );
        assert_eq!(line["fault"], Value::Null, "{line}");
        assert!(
            line["backend"]
                .as_str()
                .unwrap()
                .starts_with(&format!("{name}@"))
        );
        let times = (line["wait_ms"].as_f64(), line["ms"].as_f64());
        assert!(times.0 > Some(0.0) && times.0 < times.1, "{line}");
        let bytes = (
            line["received"].as_u64().unwrap(),
            line["sent"].as_u64().unwrap(),
        );
        match name {
            "tcp" => assert_eq!(bytes, (0, 6)),
            "udp" => assert_eq!(bytes, (1, 1)),
            // With the first message of TLS, or with the agents' own handshake.
            _ => assert!(bytes.0 > 100 && bytes.1 >= 6, "{line}"),
        }
        let agent = if name == "private" {
            asking.as_str().into()
        } else {
            Value::Null
        };
        assert_eq!(line["agent"], agent);
    }
    let again = near.visit();
    drop(agent.process.kill());
    for (name, before) in tunnels {
        let line = until(&format!("{name} has another line"), || {
            visits(&near, name).get(before + 1).cloned()
        });
        assert_eq!(line["fault"], "backend went away", "{line}");
    }
    drop(again);
}
