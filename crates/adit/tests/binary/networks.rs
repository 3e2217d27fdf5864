//! Edge and agent on two sides of a network that a test spoils.

use std::fs;
use std::net::SocketAddr;
use std::thread;

use adit_testkit::counters::metric;
use adit_testkit::network::{Condition, End, Network};
use adit_testkit::peers::{python, repository};
use adit_testkit::process::{Ended, Process};
use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::{until, until_true};

use crate::lab::{Lab, Running, get};

const LINK: u16 = 7400;
const API: u16 = 9090;
pub(crate) const PORT: u16 = 2222;

/// An edge at one end with one TCP port, an agent at the other.
pub(crate) struct Apart {
    pub(crate) lab: Lab,
    pub(crate) network: Network,
    edge: Running,
}

impl Apart {
    fn new() -> Self {
        Self::with("", "")
    }

    /// With more keys of `[doors]` and more tables.
    pub(crate) fn with(doors: &str, tables: &str) -> Self {
        let lab = Lab::new();
        let network = Network::new(&["home", "edge", "stranger"]);
        let end = network.end("edge");
        lab.file(
            "server.toml",
            &format!(
                "[doors]\nhttp = \"{at}:80\"\nlink = \"{at}:{LINK}\"\napi = \"127.0.0.1:{API}\"\n\
                 tcp_ports = \"{PORT}\"\ntcp_bind = \"0.0.0.0\"\n{doors}\
                 [link]\nheartbeat_seconds = 2\ndead_seconds = 5\n\
                 [server]\ndomain = \"test\"\ndata = \"edge\"\nworkers = 2\n{tables}",
                at = end.address(),
            ),
        );
        let edge = inside(&lab, end, &["server", "--config", "server.toml"], &[]);
        edge.line("ready");
        Self { lab, network, edge }
    }

    pub(crate) fn end(&self, name: &str) -> &End {
        self.network.end(name)
    }

    /// Starts an agent at home and waits until its tunnel is live. `before`
    /// are words of shell in front of it.
    fn agent(&self, before: &str, target: &str) -> Running {
        let (join, pin) = (self.said("--print-join"), self.said("--print-pin"));
        let agent = self.lab.start_in(
            &format!(
                "exec {} {before} \"$0\" \"$@\"",
                self.end("home").words().join(" ")
            ),
            &["tcp", target, "--name", "it", "--data", "agent"],
            &[("ADIT_EDGE", &join), ("ADIT_PIN", &pin)],
        );
        agent.live("it");
        agent
    }

    /// What the edge prints for `adit server` with this flag.
    pub(crate) fn said(&self, flag: &str) -> String {
        let said = self.lab.run(&["server", flag, "--config", "server.toml"]);
        said.done().trim().to_owned()
    }

    /// A visitor beside the edge.
    pub(crate) fn visit(&self) -> Socket {
        self.end("edge").inside(|| Socket::dial(local(PORT)))
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let api = local(API);
        let (_, page) = self
            .end("edge")
            .inside(|| get(api, &api.to_string(), "/metrics"));
        metric(&page, name)
    }
}

pub(crate) fn inside(lab: &Lab, end: &End, words: &[&str], variables: &[(&str, &str)]) -> Running {
    let shell = format!("exec {} \"$0\" \"$@\"", end.words().join(" "));
    lab.start_in(&shell, words, variables)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Says hello, then gives everything back.
pub(crate) fn echo(mut socket: Socket) {
    socket.send("hello\n");
    socket.echo();
}

/// So many bytes go to the service and come back through one visitor.
pub(crate) fn there_and_back(visitor: &mut Socket, size: usize) {
    let sent: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    let copy = sent.clone();
    let mut writer = visitor.stream().try_clone().unwrap();
    let writing = thread::spawn(move || std::io::Write::write_all(&mut writer, &copy).unwrap());
    assert!(visitor.exactly(size) == sent, "the bytes were changed");
    writing.join().unwrap();
}

/// A path that swallows large packets carries small ones, so that all looks
/// well until the first full packet: a link by TCP must never send one, and
/// QUIC, which asks the path by packets of its own, none with bytes of a stream
/// that it does not say again in smaller ones.
#[test]
fn a_path_that_swallows_large_packets_carries_links_and_bulk() {
    for carrier in ["tcp", "quic"] {
        a_path_with_a_hole_carries_links_and_bulk(carrier);
    }
}

fn a_path_with_a_hole_carries_links_and_bulk(carrier: &str) {
    let apart = Apart::new();
    let target = apart.end("home").inside(|| origin(echo));
    apart.network.set(&[Condition::Mtu(1400)]);
    let way = format!("env ADIT_AGENT_CARRIER={carrier}");
    let agent = apart.agent(&way, &target.to_string());
    let link = agent.line("connected ");
    assert!(link.ends_with(&format!(" {carrier}")), "{link}");
    let mut visitor = apart.visit();
    visitor.until("hello\n");
    there_and_back(&mut visitor, 4 << 20);
    // The path gets worse under an open stream.
    apart.network.set(&[Condition::Mtu(1280)]);
    there_and_back(&mut visitor, 4 << 20);
    let mut second = apart.visit();
    second.until("hello\n");
    there_and_back(&mut second, 4 << 20);
    let counts = apart.network.counts("*", "*");
    assert!(
        counts.bytes > 3 * (8 << 20),
        "it went another way: {counts:?}"
    );
    // The hole was there for who looked for it.
    assert_eq!(counts.hole > 0, carrier == "quic", "{counts:?}");
    assert_eq!(agent.stop().0, Some(0));
}

/// Most of a name's addresses lead nowhere: the edge's for the agent, and the
/// target's.
#[test]
fn of_a_names_addresses_the_one_that_lives_is_found() {
    let apart = Apart::with("", "public = \"edge.test:7400\"\n");
    let (home, edge) = (apart.end("home"), apart.end("edge"));
    let target = home.inside(|| origin(echo));
    let hosts = format!(
        "{} edge.test\n{} edge.test\n{} edge.test\n{} nas.test\n{} nas.test\n127.0.0.1 nas.test\n",
        edge.more_address6(9),
        edge.more_address(9),
        edge.address(),
        edge.more_address6(8),
        edge.more_address(8),
    );
    fs::write(apart.lab.path("hosts"), hosts).unwrap();
    let mount = "unshare --mount -- sh -c 'mount --bind hosts /etc/hosts && exec \"$@\"' sh";
    let begun = std::time::Instant::now();
    let _agent = apart.agent(mount, &format!("nas.test:{}", target.port()));
    let took = begun.elapsed();
    assert!(took.as_secs() < 5, "one address after the other: {took:?}");
    apart.visit().until("hello\n");
}

/// The wire is cut for longer than heartbeats bear, and comes back.
#[test]
fn a_wire_that_was_cut_resets_visitors_and_the_link_comes_back() {
    let apart = Apart::new();
    let target = apart.end("home").inside(|| origin(echo));
    let agent = apart.agent("", &target.to_string());
    let mut visitor = apart.visit();
    visitor.until("hello\n");
    apart.network.set(&[Condition::Cut(true)]);
    until_true("the edge gives the link up", || {
        apart.metric("adit_links_open") < 1.0
    });
    assert_eq!(visitor.rest(), (Vec::new(), false));
    apart.network.set(&[Condition::Cut(false)]);
    until_true("the link is back", || apart.metric("adit_links_open") > 0.0);
    let mut visitor = apart.visit();
    visitor.until("hello\n");
    there_and_back(&mut visitor, 1 << 16);
    assert_eq!(agent.stop().0, Some(0));
    assert_eq!(apart.edge.stop().0, Some(0));
}

/// What a scanner was told names nothing, and the link door said nothing.
fn learns_nothing(said: &Ended) {
    let open: Vec<_> = said
        .lines
        .iter()
        .filter_map(|l| l.strip_prefix("open "))
        .collect();
    assert_eq!(open, ["80", "2222", "7400", "8443"], "{}", said.text());
    for line in &said.lines {
        assert!(!line.to_lowercase().contains("adit"), "{line}");
        assert!(!line.starts_with("datagram"), "{line}");
        if line.starts_with(&format!("said {LINK} ")) {
            let silent = ["b''", "b'' gone", "refused"];
            assert!(
                silent.iter().any(|end| line.ends_with(&format!(" {end}"))),
                "{line}"
            );
        }
        if let Some(answer) = line.strip_prefix("said 80 ") {
            let known = ["HTTP/1.1 4", "b''", "refused"];
            assert!(known.iter().any(|words| answer.contains(words)), "{line}");
        }
    }
}

/// What a scanner learns of an edge that is busy: which ports there are.
#[test]
fn a_port_scan_learns_nothing_and_bans_itself_alone() {
    let tls = "tls = \"0.0.0.0:8443\"\n";
    let apart = Apart::with(tls, "[limits]\nproofs_before_ban = 12\n");
    let (home, edge) = (apart.end("home"), apart.end("edge"));
    let target = home.inside(|| origin(echo));
    let _agent = apart.agent("", &target.to_string());
    let mut visitor = apart.visit();
    visitor.until("hello\n");

    let mut scan = apart.end("stranger").command(python());
    scan.arg(repository("crates/testkit/python/scan.py"))
        .args([edge.address().to_string(), "2".to_owned()]);
    let scan = Process::spawn(scan);
    until("the scan has gone through all ports", || {
        // Others are served all the while.
        there_and_back(&mut visitor, 1 << 12);
        let lines = scan.lines();
        lines
            .iter()
            .any(|line| line.starts_with("said"))
            .then_some(())
    });
    let said = scan.ended();
    assert!(said.status.success(), "{}", said.text());
    learns_nothing(&said);

    // Who goes on guessing is banned at every door, and nobody else is.
    let (stranger, link) = (apart.end("stranger"), (edge.address(), LINK).into());
    let guess = |end: &End| end.inside(|| Socket::send_to(link, vec![7; 4096]));
    let guesses: Vec<_> = (0..20).map(|_| guess(stranger)).collect();
    until_true("the stranger is banned", || {
        apart.metric("adit_bans_total") > 0.0
    });
    drop(guesses);
    let port = SocketAddr::from((edge.address(), PORT));
    let (heard, _) = stranger.inside(|| Socket::dial(port)).rest();
    assert_eq!(heard, b"");
    home.inside(|| Socket::dial(port)).until("hello\n");
    there_and_back(&mut visitor, 1 << 16);
    // The edge's own machine is never banned, whatever it sends.
    let own: Vec<_> = (0..40)
        .map(|_| edge.inside(|| Socket::send_to(local(API), vec![7; 4096])))
        .collect();
    drop(own);
    apart.visit().until("hello\n");
    assert!(apart.metric("adit_links_open") > 0.0);
}

/// The system keeps low ports for those with the right to them.
#[test]
fn a_port_below_1024_without_rights_is_told() {
    let apart = Apart::new();
    let less = "setpriv --bounding-set -net_bind_service --inh-caps -net_bind_service";
    let edge = apart.end("edge");
    let shell = format!("exec {} {less} \"$0\" \"$@\"", edge.words().join(" "));
    let door = "127.0.0.1:81";
    let words = [
        "server",
        "--data",
        "other",
        "--http",
        door,
        "--link",
        "127.0.0.1:0",
    ];
    let off = ("ADIT_DOORS_API", "off");
    let said = apart.lab.start_in(&shell, &words, &[off]).ended();
    said.refused(1, "ADIT-2002", &[door]);
    let mut doors = words;
    doors[4] = "127.0.0.1:8081";
    let variables = [("ADIT_DOORS_TCP_PORTS", "82"), off];
    let other = apart.lab.start_in(&shell, &doors, &variables);
    let link = other.line("listening link ");
    other.line("ready");
    let print = |flag| {
        let words = ["server", "--data", "other", "--link", &link, flag];
        apart.lab.run(&words).done().trim().to_owned()
    };
    let (join, pin) = (print("--print-join"), print("--print-pin"));
    let words = [
        "tcp",
        "127.0.0.1:9",
        "--port",
        "82",
        "--name",
        "low",
        "--data",
        "agent",
    ];
    let agent = inside(
        &apart.lab,
        edge,
        &words,
        &[("ADIT_EDGE", &join), ("ADIT_PIN", &pin)],
    );
    let told = agent.logged("82");
    assert!(told.contains("cannot be opened on the edge"), "{told}");
}
