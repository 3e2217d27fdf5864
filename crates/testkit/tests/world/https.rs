//! The HTTPS door with real peers: curl, openssl, nginx, and a TLS client
//! whose every byte a test decides.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use adit_agent::{By, Carries};
use adit_model::Carrier;
use adit_testkit::between::Between;
use adit_testkit::curl;
use adit_testkit::nginx::Nginx;
use adit_testkit::peers::program;
use adit_testkit::process::{Ended, Process};
use adit_testkit::raw::{Socket, origin};
use adit_testkit::tls::{Pair, announced, connect, head};
use adit_testkit::wait::{DEADLINE, until_true};
use adit_testkit::world::{AgentPlan, World};

/// A world with an HTTPS door.
pub(crate) fn world(doors: &str, tables: &str) -> (World, SocketAddr) {
    let doors = format!("https = \"127.0.0.1:0\"\n{doors}");
    let world = World::with_doors(&doors, tables);
    let door = world.https();
    (world, door)
}

pub(crate) fn route(host: &str, name: &str) -> String {
    format!("[[route]]\nhost = \"{host}\"\nagents = \"{name}\"\n")
}

/// What curl gets that trusts nobody but the signer of a certificate.
pub(crate) fn fetch(door: SocketAddr, trusted: &Path, arguments: &[&str]) -> Ended {
    let trusted = trusted.display().to_string();
    curl::attempt(door, &[&["--cacert", &trusted], arguments].concat())
}

fn said(ended: &Ended, word: &str) {
    let right = ended.status.success() && ended.lines.last().is_some_and(|line| line == word);
    assert!(right, "wanted {word}: {}", ended.text());
}

/// openssl's client, whose input ends at once.
fn s_client(door: SocketAddr, arguments: &[&str]) -> String {
    let mut command = Command::new(program("openssl"));
    command
        .args(["s_client", "-connect", &door.to_string()])
        .args(arguments);
    Process::run(command).text()
}

/// What a service behind nginx sees of a visitor.
const SEEN: &str =
    "location / { return 200 \"$http_x_forwarded_proto $http_x_forwarded_for $host\"; }";

#[test]
fn each_name_gets_its_certificate_and_its_service() {
    let exact = Pair::new(&["www.other.test"]);
    let wild = Pair::new(&["*.sub.test", "sub.test"]);
    let own = Pair::new(&["a.sub.test"]);
    let tables = [
        wild.table(),
        exact.table(),
        own.table(),
        route("www.other.test", "app"),
        route("a.sub.test", "app"),
        route("b.sub.test", "app"),
    ];
    let (world, door) = world("", &tables.concat());
    let nginx = Nginx::start(SEEN);
    let agent = world.agent("app", nginx.address);
    let port = door.port();
    assert_eq!(agent.wait_live("app"), format!("https://app.test:{port}"));
    for (host, pair) in [
        ("www.other.test", &exact),
        // The name of its own goes before the star.
        ("a.sub.test", &own),
        ("b.sub.test", &wild),
        ("B.Sub.Test", &wild),
    ] {
        for version in ["--tlsv1.3", "--tls-max=1.2"] {
            let version = version.split('=').collect::<Vec<_>>();
            let url = format!("https://{host}/");
            let ended = fetch(door, &pair.cert, &[&version[..], &[&url]].concat());
            said(&ended, &format!("https 127.0.0.1 {}", host.to_lowercase()));
        }
    }
    // The wrong one is not shown: nobody but its signer vouches for a name.
    let wrong = fetch(door, &wild.cert, &["https://a.sub.test/"]);
    assert!(!wrong.status.success(), "{}", wrong.text());
    // Without one of the owner's the first of them is the answer to all names.
    let unknown = curl::request(door, &["--insecure", "https://app.test/"]);
    assert_eq!(
        (unknown.status, unknown.body.as_str()),
        (200, "https 127.0.0.1 app.test")
    );
    // What a service is not asked for is not told apart.
    assert_eq!(
        curl::request(door, &["--insecure", "https://none.test/"]).status,
        404
    );
    let status = world.metric("adit_tls_certificates");
    assert_eq!(status as u32, 4);
}

#[test]
fn names_without_a_certificate_get_the_edges_own() {
    let (mut world, door) = world("", "");
    let nginx = Nginx::start(SEEN);
    let _agent = world.agent("app", nginx.address);
    let own = world.folder("edge").join("certificate.pem");
    // Trusted by hand: the domain is its name, although nothing is routed there.
    let domain = fetch(door, &own, &["https://test/"]);
    assert!(
        domain.status.success() && domain.text().contains(" 404 "),
        "{}",
        domain.text()
    );
    let reply = curl::request(door, &["--insecure", "https://app.test/"]);
    assert_eq!(reply.body, "https 127.0.0.1 app.test");
    let told = world.facts().certificate.clone().unwrap();
    let shown = || {
        let mut command = Command::new(program("openssl"));
        command.args([
            "x509",
            "-noout",
            "-fingerprint",
            "-sha256",
            "-subject",
            "-issuer",
            "-in",
        ]);
        command.arg(&own);
        Process::run(command).text()
    };
    assert!(shown().contains(&told), "{told}\n{}", shown());
    assert!(
        shown().contains("subject=CN = test") && shown().contains("issuer=CN = test"),
        "{}",
        shown()
    );
    // It outlives the edge.
    world.stop_edge();
    world.start_edge();
    assert_eq!(world.facts().certificate.as_ref(), Some(&told));
}

#[test]
fn openssl_speaks_both_versions_and_resumes() {
    let pair = Pair::new(&["www.other.test"]);
    let (world, door) = world("", &pair.table());
    let folder = tempfile::tempdir().unwrap();
    let name = ["-servername", "www.other.test"];
    let trusted = pair.cert.display().to_string();
    for (version, shown) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let kept = folder.path().join(version).display().to_string();
        let common = [
            version,
            "-CAfile",
            &trusted,
            "-verify_return_error",
            "-brief",
        ];
        let first = s_client(door, &[&common[..], &name].concat());
        assert!(
            first.contains(&format!("Protocol version: {shown}")),
            "{first}"
        );
        assert!(first.contains("Verification: OK"), "{first}");
        // A ticket of TLS 1.3 comes behind the handshake: an answer is waited for.
        let ask = |more: [&str; 2]| {
            let mut command = Command::new("sh");
            let program = program("openssl").display().to_string();
            command.args(["-c", "printf 'GET / HTTP/1.1\\r\\nHost: www.other.test\\r\\nConnection: close\\r\\n\\r\\n' | \"$@\"", "sh", &program]);
            command.args([
                "s_client",
                "-connect",
                &door.to_string(),
                "-ign_eof",
                version,
            ]);
            command.args(name).args(more);
            Process::run(command).text()
        };
        let fresh = ask(["-sess_out", &kept]);
        assert!(
            fresh.contains("New, TLSv1") && fresh.contains(" 404 "),
            "{fresh}"
        );
        let again = ask(["-sess_in", &kept]);
        assert!(
            again.contains("Reused, TLSv1") && again.contains(" 404 "),
            "{again}"
        );
        // The end of TLS is said before the end of the connection.
        assert!(!again.contains("unexpected eof"), "{again}");
    }
    assert_eq!(world.metric("adit_tls_resumed_total") as u32, 2);
}

#[test]
fn what_openssl_asks_for_besides_is_answered() {
    let pair = Pair::new(&["www.other.test"]);
    let (_world, door) = world("", &pair.table());
    // Versions that are no more are refused, by an alert.
    let old = s_client(door, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(
        old.contains("alert") && !old.contains("BEGIN CERTIFICATE"),
        "{old}"
    );
    // No name, or another: the certificate of the owner.
    for arguments in [
        &["-noservername"][..],
        &["-servername", "elsewhere.example"],
    ] {
        let shown = s_client(door, arguments);
        assert!(shown.contains("BEGIN CERTIFICATE"), "{shown}");
        let pem = std::fs::read_to_string(&pair.cert).unwrap();
        let line = pem.lines().nth(3).unwrap();
        assert!(shown.contains(line), "{shown}");
    }
    // What else it speaks is told, and what it does not is refused.
    let spoken = s_client(door, &["-alpn", "h2,http/1.1"]);
    assert!(spoken.contains("ALPN protocol: http/1.1"), "{spoken}");
    let other = s_client(door, &["-alpn", "h2"]);
    assert!(other.contains("no application protocol"), "{other}");
}

#[test]
fn a_connection_is_kept_and_carries_much_both_ways() {
    let pair = Pair::new(&["www.other.test"]);
    let tables = [
        pair.table(),
        route("www.other.test", "app"),
        "[[route]]\nhost = \"up.other.test\"\nagents = \"up\"\n".to_owned(),
    ];
    let (world, door) = world("", &tables.concat());
    let nginx = Nginx::files();
    let large: Vec<u8> = (0..24_000_000u32).map(|n| (n * 7 / 3) as u8).collect();
    nginx.put("large", &large);
    let _app = world.agent("app", nginx.address);
    let (url, small) = (
        "https://www.other.test/large",
        "https://www.other.test/none",
    );
    let file = world.folder("came");
    let mut command = curl::command(door);
    command
        .arg("--cacert")
        .arg(&pair.cert)
        .args(["--write-out", "%{num_connects}\n"]);
    command.arg("--output").arg(&file).arg(url);
    command.args(["--output", "/dev/null", small]);
    let ended = Process::run(command);
    assert_eq!(ended.lines, ["1", "0"], "{}", ended.text());
    assert!(std::fs::read(&file).unwrap() == large);
    // And back: what the service got is what it tells.
    let up = origin(|mut socket: Socket| {
        let head = socket.head();
        let (_, length) = head.split_once("Content-Length: ").unwrap();
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        let body = socket.exactly(length);
        let sum = body
            .iter()
            .fold(0u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
        let text = sum.to_string();
        let length = text.len();
        socket.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}"
        ));
    });
    let _up = world.agent("up", up);
    let sum = large
        .iter()
        .fold(0u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
    let body = format!("@{}", file.display());
    let reply = curl::request(
        door,
        &[
            "--insecure",
            "--header",
            "Expect:",
            "--data-binary",
            &body,
            "https://up.other.test/",
        ],
    );
    assert_eq!(reply.body, sum.to_string());
}

/// The names of the first world's certificate, and a service that upgrades.
fn upgrading() -> (World, SocketAddr, Pair, adit_testkit::world::Agent) {
    let pair = Pair::new(&["ws.test"]);
    let (world, door) = world("", &pair.table());
    let target = origin(|mut socket: Socket| {
        let head = socket.head();
        assert!(head.contains("X-Forwarded-Proto: https\r\n"), "{head}");
        socket.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        // The visitor's end in order is an end here; ours comes after a last word.
        let (mut all, clean) = socket.rest();
        assert!(clean, "the visitor's end was in order");
        all.extend_from_slice(b" and bye");
        socket.send(all);
    });
    let agent = world.agent("ws", target);
    (world, door, pair, agent)
}

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: ws.test\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[test]
fn an_upgraded_stream_keeps_each_directions_end() {
    let (_world, door, pair, _agent) = upgrading();
    let mut tls = connect(door, &pair.cert, "ws.test");
    tls.write_all(UPGRADE).unwrap();
    assert!(head(&mut tls).starts_with("HTTP/1.1 101 "));
    tls.write_all(b"hello").unwrap();
    // Only our direction ends.
    tls.conn.send_close_notify();
    tls.flush().unwrap();
    let mut rest = String::new();
    // Fails where the other side's end is not said.
    tls.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "hello and bye");
}

#[test]
fn a_connection_that_is_cut_is_no_end() {
    let pair = Pair::new(&["ws.test"]);
    let (world, door) = world("", &pair.table());
    let (sender, ends) = std::sync::mpsc::channel();
    let target = origin(move |mut socket: Socket| {
        socket.head();
        socket.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        sender.send(socket.rest()).unwrap();
    });
    let _agent = world.agent("ws", target);
    let mut tls = connect(door, &pair.cert, "ws.test");
    tls.write_all(UPGRADE).unwrap();
    head(&mut tls);
    tls.write_all(b"hello").unwrap();
    // The socket ends, TLS does not.
    tls.sock.shutdown(std::net::Shutdown::Write).unwrap();
    let (came, clean) = ends.recv_timeout(DEADLINE).unwrap();
    assert!(!clean, "a cut looked like an end");
    assert!(b"hello".starts_with(&came));
}

#[test]
fn an_answer_that_is_cut_never_looks_whole() {
    let pair = Pair::new(&["app.test"]);
    let (world, door) = world("", &pair.table());
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let target = origin(move |mut socket: Socket| {
        socket.head();
        socket.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        gone.lock().unwrap().recv_timeout(DEADLINE).unwrap();
    });
    let _agent = world.agent("app", target);
    let mut tls = connect(door, &pair.cert, "app.test");
    tls.write_all(b"GET / HTTP/1.0\r\nHost: app.test\r\n\r\n")
        .unwrap();
    head(&mut tls);
    go.send(()).unwrap();
    let mut rest = Vec::new();
    // A reset, and no word that this was the end.
    assert!(tls.read_to_end(&mut rest).is_err(), "{rest:?}");
}

#[test]
fn tls_tunnels_and_ended_names_share_the_port() {
    let ended = Pair::new(&["site.test"]);
    let passed = Pair::new(&["own.test"]);
    let (world, door) = world("", &ended.table());
    let (cert, key) = (passed.cert.display(), passed.key.display());
    let directives = format!(
        "ssl_certificate {cert}; ssl_certificate_key {key}; location / {{ return 200 \"its own\"; }}"
    );
    let blind = Nginx::listening("ssl", &directives);
    let site = Nginx::start("location / { return 200 \"ended here\"; }");
    let mut plan = AgentPlan::tcp(&world, "own", blind.address, None);
    let Carries::Bytes { by, .. } = &mut plan.settings.tunnels[0].carries else {
        panic!("bytes")
    };
    *by = By::TlsName;
    let own = world.start_agent(plan);
    assert_eq!(
        own.wait_live("own"),
        format!("https://own.test:{}", door.port())
    );
    let _site = world.agent("site", site.address);
    for _ in 0..3 {
        said(
            &fetch(door, &passed.cert, &["https://own.test/"]),
            "its own",
        );
        said(
            &fetch(door, &ended.cert, &["https://site.test/"]),
            "ended here",
        );
    }
    assert_eq!(
        world.metric("adit_tls_handshakes_total{result=\"passed\"}") as u32,
        3
    );
}

#[test]
fn a_tls_tunnel_that_is_away_is_not_ended_here() {
    let (world, door) = world("", "");
    let target = origin(|mut socket: Socket| drop(socket.rest()));
    let between = Between::start(world.link());
    let mut plan = AgentPlan::tcp(&world, "own", target, None);
    let Carries::Bytes { by, .. } = &mut plan.settings.tunnels[0].carries else {
        panic!("bytes")
    };
    *by = By::TlsName;
    // The HTTPS door is a way for its link, too.
    plan.settings.carriage.only = Some(Carrier::Tcp);
    let agent = world.start_agent(plan.by(&world, between.address));
    agent.wait_live("own");
    let of_http = world.agent("web", target);
    // Its link ends, and its name is kept for it.
    between.close(true);
    between.cut();
    until_true("the tunnel is away", || {
        world.metric("adit_tunnels_open") as u32 == 1
    });
    let away = s_client(door, &["-servername", "own.test"]);
    assert!(!away.contains("BEGIN CERTIFICATE"), "{away}");
    let other = s_client(door, &["-servername", "web.test"]);
    assert!(other.contains("BEGIN CERTIFICATE"), "{other}");
    drop(of_http);
}

#[test]
fn plain_http_leads_to_https_but_for_those_who_came_by_it() {
    let pair = Pair::new(&["app.test"]);
    let doors = "http_to_https = true\ntrusted_proxies = [\"127.0.0.2\"]\n";
    let (world, door) = world(doors, &pair.table());
    let nginx = Nginx::start(SEEN);
    let _agent = world.agent("app", nginx.address);
    let reply = curl::get(world.http(), "http://app.test/a%20b?c=d");
    assert_eq!(reply.status, 308);
    let wanted = format!("https://app.test:{}/a%20b?c=d", door.port());
    assert_eq!(reply.header("location"), Some(&wanted[..]));
    let followed = fetch(door, &pair.cert, &[&wanted]);
    said(&followed, "https 127.0.0.1 app.test");
    let proto = ["--header", "X-Forwarded-Proto: https"];
    // A stranger's word is nothing, a proxy's is.
    let stranger = curl::request(world.http(), &[&proto[..], &["http://app.test/"]].concat());
    assert_eq!(stranger.status, 308);
    let by = ["--interface", "127.0.0.2", "http://app.test/"];
    let proxy = curl::request(world.http(), &[&proto[..], &by].concat());
    assert_eq!(
        (proxy.status, proxy.body.as_str()),
        (200, "https 127.0.0.2 app.test")
    );
    // Who is not known is not sent anywhere.
    assert_eq!(
        curl::get(world.http(), "http://elsewhere.example/").status,
        404
    );
}

#[test]
fn a_host_that_tls_was_not_made_for_is_misdirected() {
    let pair = Pair::new(&["one.test", "two.test"]);
    let (world, door) = world("", &pair.table());
    let nginx = Nginx::start(SEEN);
    let agents = ["one", "two", "three"].map(|name| world.agent(name, nginx.address));
    let status = |url: &str, host: &str| {
        let host = format!("Host: {host}");
        curl::request(door, &["--insecure", "--header", &host, url]).status
    };
    assert_eq!(status("https://one.test/", "one.test"), 200);
    // Another name of the same certificate.
    assert_eq!(status("https://one.test/", "two.test"), 200);
    assert_eq!(status("https://one.test/", "three.test"), 421);
    assert_eq!(status("https://three.test/", "three.test"), 200);
    // Who asked for no name has contradicted nobody.
    let address = format!("https://{door}/");
    assert_eq!(status(&address, "three.test"), 200);
    drop(agents);
}

#[test]
fn a_balancer_names_the_visitor_before_tls_begins() {
    let pair = Pair::new(&["app.test"]);
    let doors = "proxy_protocol = [\"127.0.0.1\"]\n";
    let (world, door) = world(doors, &pair.table());
    let nginx = Nginx::start(SEEN);
    let _agent = world.agent("app", nginx.address);
    let answer = announced(door, &pair.cert, "192.0.2.7");
    assert!(answer.ends_with("https 192.0.2.7 app.test"), "{answer}");
}
