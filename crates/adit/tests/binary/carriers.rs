//! What a link's bytes travel in, where a network lets only some of it pass.

use std::io::Write;
use std::time::{Duration, Instant};

use adit_testkit::between::Between;
use adit_testkit::network::Condition;
use adit_testkit::nginx::Nginx;
use adit_testkit::proxies::Proxy;
use adit_testkit::raw::{Socket, origin};
use adit_testkit::tls::Pair;
use adit_testkit::wait::until_true;

use crate::lab::{Lab, Running};
use crate::networks::{Apart, PORT, echo, inside, there_and_back};

const DOORS: &str = "https = \"0.0.0.0:443\"\nudp_ports = \"5353\"\n";

/// An agent at home with a TCP tunnel, and one of datagrams, so that QUIC is
/// what it likes best.
fn agent(apart: &Apart, variables: &[(&str, &str)]) -> Running {
    agent_for(apart, echo, variables)
}

fn agent_for(
    apart: &Apart,
    service: impl Fn(Socket) + Send + Sync + 'static,
    variables: &[(&str, &str)],
) -> Running {
    let target = apart.end("home").inside(|| origin(service));
    let text = format!(
        "[agent]\ndata = \"agent\"\n\
         [[tunnel]]\nname = \"it\"\nkind = \"tcp\"\ntarget = \"{target}\"\nport = {PORT}\n\
         [[tunnel]]\nname = \"dns\"\nkind = \"udp\"\ntarget = \"{target}\"\nport = 5353\n"
    );
    apart.lab.file("client.toml", &text);
    let (join, pin) = (apart.said("--print-join"), apart.said("--print-pin"));
    let own = [("ADIT_EDGE", join.as_str()), ("ADIT_PIN", pin.as_str())];
    let variables = [&own, variables].concat();
    let words = ["client", "--config", "client.toml"];
    inside(&apart.lab, apart.end("home"), &words, &variables)
}

/// The carriers of its links so far, the first one first.
fn carriers(agent: &Running) -> Vec<String> {
    let lines = agent.process.lines();
    let links = lines.iter().filter(|line| line.starts_with("connected "));
    links
        .map(|line| line.rsplit(' ').next().unwrap().to_owned())
        .collect()
}

fn until_on(agent: &Running, wanted: &[&str]) {
    until_true(&format!("its links were {wanted:?}"), || {
        carriers(agent).len() >= wanted.len()
    });
    assert_eq!(carriers(agent), wanted);
}

fn answers(apart: &Apart) {
    let mut visitor = apart.visit();
    visitor.until("hello\n");
    there_and_back(&mut visitor, 1 << 18);
}

#[test]
fn an_agent_stays_reachable_while_its_ways_are_closed() {
    let apart = Apart::with(DOORS, "");
    let first = agent(&apart, &[]);
    first.live("it");
    until_on(&first, &["quic"]);
    answers(&apart);
    let status = apart
        .lab
        .run(&["status", "--json", "--config", "server.toml"]);
    assert!(status.done().contains("\"carrier\":\"quic\""));

    apart.network.set(&[Condition::Udp(false)]);
    until_on(&first, &["quic", "tcp"]);
    answers(&apart);

    apart.network.set(&[Condition::OnlyPort(443)]);
    until_on(&first, &["quic", "tcp", "websocket"]);
    answers(&apart);
    assert_eq!(first.stop().0, Some(0));

    // What worked on this network is tried first the next time.
    let second = agent(&apart, &[]);
    until_on(&second, &["websocket"]);
    second.live("it");
    answers(&apart);

    // And what is better is found again once it works.
    let open = [Condition::OnlyPort(0), Condition::Udp(true)];
    apart.network.set(&open);
    let mut visitor = apart.visit();
    visitor.until("hello\n");
    until_on(&second, &["websocket", "quic"]);
    answers(&apart);
    // Streams that were open go on where they were.
    there_and_back(&mut visitor, 1 << 18);
    drop(visitor);
    assert_eq!(second.stop().0, Some(0));
}

/// On QUIC nothing but the refusal of its datagrams tells the edge, on a
/// WebSocket an end of TCP beneath TLS.
#[test]
fn visitors_of_an_agent_that_is_killed_see_a_reset_within_a_second() {
    for carrier in ["quic", "websocket"] {
        a_killed_agents_visitors_see_a_reset(carrier);
    }
}

fn a_killed_agents_visitors_see_a_reset(carrier: &str) {
    let apart = Apart::with(DOORS, "");
    let service = |mut socket: Socket| {
        socket.send("hello\n");
        if socket.until("\n") == b"all\n" {
            // Until the other side is gone.
            while socket.stream().write_all(&[b'x'; 64 * 1024]).is_ok() {}
        }
        socket.rest();
    };
    let first = agent_for(&apart, service, &[("ADIT_AGENT_CARRIER", carrier)]);
    first.live("it");
    until_on(&first, &[carrier]);
    apart
        .network
        .set(&[Condition::Delay(Duration::from_millis(20))]);
    let [mut idle, mut busy] = ["some\n", "all\n"].map(|wish| {
        let mut visitor = apart.visit();
        visitor.until("hello\n");
        visitor.send(wish);
        visitor
    });
    busy.exactly(1 << 20);
    let killed = Instant::now();
    drop(first.process.kill());
    let ended = std::thread::spawn(move || (busy.rest().1, killed.elapsed()));
    let ends = [(idle.rest().1, killed.elapsed()), ended.join().unwrap()];
    for (is_clean, took) in ends {
        let soon = took < Duration::from_secs(1);
        assert!(!is_clean && soon, "{carrier}: {ends:?}");
    }
    let labels = "{tunnel=\"it\",kind=\"tcp\"}";
    let metric = |what: &str| apart.metric(&format!("adit_tunnel_{what}{labels}")) as u64;
    until_true("both are counted", || metric("visitors_open") == 0);
    assert_eq!((metric("failures_total"), metric("agents")), (2, 0));
}

#[test]
fn a_network_that_swallows_udp_is_no_reason_to_wait() {
    let apart = Apart::with(DOORS, "");
    apart.network.set(&[Condition::Udp(false)]);
    let began = Instant::now();
    let agent = agent(&apart, &[]);
    until_on(&agent, &["tcp"]);
    let took = began.elapsed();
    // QUIC alone is given up after 5 s.
    assert!(took < Duration::from_secs(4), "{took:?}");
    agent.live("it");
    answers(&apart);
    for cause in ["unknown", "mac", "stale", "replayed", "incomplete"] {
        let name = format!("adit_link_proof_failures_total{{cause=\"{cause}\"}}");
        assert!(apart.metric(&name) < 1.0, "{cause}");
    }
    assert_eq!(agent.stop().0, Some(0));
}

#[test]
fn a_forced_carrier_is_the_only_one() {
    for carrier in ["quic", "tcp", "websocket"] {
        let apart = Apart::with(DOORS, "");
        let agent = agent(&apart, &[("ADIT_AGENT_CARRIER", carrier)]);
        agent.live("it");
        until_on(&agent, &[carrier]);
        answers(&apart);
        assert_eq!(agent.stop().0, Some(0));
    }
}

#[test]
fn the_only_way_out_may_be_a_proxy() {
    let apart = Apart::with(DOORS, "");
    let out = apart.end("stranger");
    apart
        .network
        .set_between("home", "edge", &[Condition::Cut(true)]);
    let login = Some(("me", "hidden-one"));
    let http = Proxy::http(out, &[443], login);
    let url = format!("http://me:hidden-one@{}", http.address);
    let web = agent(&apart, &[("HTTPS_PROXY", &url)]);
    until_on(&web, &["websocket"]);
    web.live("it");
    answers(&apart);
    let passed = format!("CONNECT {}:443", apart.end("edge").address());
    until_true("the proxy has seen it", || {
        http.process
            .lines()
            .iter()
            .any(|line| line.contains(&passed))
    });
    assert_eq!(web.stop().0, Some(0));

    let socks = Proxy::socks(out, login);
    let url = format!("socks5://me:hidden-one@{}", socks.address);
    let by_socks = [
        ("ADIT_AGENT_PROXY", url.as_str()),
        ("ADIT_AGENT_CARRIER", "tcp"),
    ];
    let by_socks = agent(&apart, &by_socks);
    until_on(&by_socks, &["tcp"]);
    by_socks.live("it");
    answers(&apart);
    assert_eq!(by_socks.stop().0, Some(0));

    // A proxy that says no is quoted, its password is not.
    let url = format!("http://me:wrong@{}", http.address);
    let refused = agent(&apart, &[("ADIT_AGENT_PROXY", &url)]);
    until_true("the refusal is told", || {
        refused.log().contains("refused: 40")
    });
    assert!(!refused.log().contains("wrong@"), "{}", refused.log());
    assert_eq!(refused.stop().0, Some(0));
}

/// Something between that ends the TLS, with a certificate of its own, passes
/// links on and learns nothing.
#[test]
fn a_middlebox_that_breaks_tls_passes_links() {
    let lab = Lab::new();
    let made = Pair::new(&["middle.test"]);
    let edge = lab.edge("");
    // What it has in its hands once TLS is off.
    let bare = Between::start(edge.http);
    let middle = Nginx::listening(
        "ssl",
        &format!(
            "ssl_certificate {}; ssl_certificate_key {};\n\
             location / {{ proxy_pass http://{}; proxy_http_version 1.1;\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;\n\
             proxy_set_header Host $host; }}",
            made.cert.display(),
            made.key.display(),
            bare.address,
        ),
    );
    let mut join: adit_model::JoinString = edge.join(&lab).parse().unwrap();
    join.addresses = vec![format!("{}:{}", middle.address.ip(), edge.link.port())];
    join.doors = vec![adit_model::CarrierDoor {
        carrier: adit_model::Carrier::WebSocket,
        port: middle.address.port(),
    }];
    let (join, pin) = (join.expose(), edge.pin(&lab));
    let site = Nginx::files();
    site.put("page", "private");
    let target = site.address.to_string();
    let words = ["http", &target, "--name", "app", "--data", "agent"];
    let words = [&words[..], &["--carrier", "websocket"]].concat();
    let agent = lab.start(&words, &[("ADIT_EDGE", &join), ("ADIT_PIN", &pin)]);
    agent.live("app");
    until_on(&agent, &["websocket"]);
    assert_eq!(edge.get("app.test", "/page").0, 200);
    let passed = bare.passed();
    let heard = |word: &[u8]| {
        let parts = |all: &[u8]| all.windows(word.len()).any(|part| part == word);
        passed.iter().any(|one| parts(&one.received))
    };
    // What goes to the agent is not masked: the request would be there to read.
    assert!(heard(b"101 Switching") && !heard(b"/page"));
    // It saw paths that mean nothing, answered like any upgrade.
    let seen = middle.requests();
    assert!(seen.iter().all(|line| line.contains(" 101 ")), "{seen:?}");
    assert_eq!(agent.stop().0, Some(0));
}
