//! A private HTTP service reaches the public: what passes, and how.

use adit_agent::{AgentEvent, Carries, Login};
use adit_testkit::nginx::Nginx;
use adit_testkit::process::Process;
use adit_testkit::python::{Origin, script};
use adit_testkit::raw::{Socket, nobody, origin};
use adit_testkit::world::{AgentPlan, World};
use adit_testkit::{curl, wait};

#[test]
fn a_page_of_nginx_reaches_curl() {
    let (world, nginx) = (World::new(), Nginx::files());
    nginx.put("page.txt", "from nginx\n");
    let agent = world.agent("app", nginx.address);
    assert!(agent.wait_live("app").starts_with("http://app.test"));
    let reply = curl::get(world.http(), "http://app.test/page.txt");
    assert_eq!((reply.status, reply.body.as_str()), (200, "from nginx"));
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    assert_eq!(
        reply.header("server"),
        None,
        "the backend's software is hidden"
    );
    assert_eq!(curl::get(world.http(), "http://app.test/none").status, 404);
}

#[test]
fn one_connection_carries_many_requests_on_both_sides() {
    let (world, nginx) = (World::new(), Nginx::start("keepalive_timeout 60;"));
    nginx.put("page.txt", "x");
    let _agent = world.agent("app", nginx.address);
    let mut visitor = Socket::dial(world.http());
    for _ in 0..50 {
        visitor.send("GET /page.txt HTTP/1.1\r\nHost: app.test\r\n\r\n");
        assert!(visitor.head().starts_with("HTTP/1.1 200 "));
        assert_eq!(visitor.exactly(1), b"x");
    }
    wait::until_true("nginx has logged all", || nginx.requests().len() == 50);
    let opened = world.metric("adit_streams_total");
    assert!(
        opened <= 3.0,
        "a stream was opened {opened} times for 50 requests"
    );
}

#[test]
fn large_bodies_pass_both_ways_unchanged() {
    let world = World::new();
    let (nginx, echo) = (Nginx::files(), Origin::start("echo", &[]));
    let content: Vec<u8> = (0..24_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    nginx.put("large.bin", &content);
    let (_one, _two) = (
        world.agent("large", nginx.address),
        world.agent("echo", echo.address),
    );
    let file = world.folder("copy.bin");
    curl::download(world.http(), "http://large.test/large.bin", &file);
    assert!(
        std::fs::read(&file).unwrap() == content,
        "the download differs"
    );
    let upload = format!("@{}", file.display());
    let reply = curl::request(
        world.http(),
        &["--data-binary", &upload, "http://echo.test/"],
    );
    assert!(
        reply.body.contains("\"length\": 24000000"),
        "{}",
        reply.body
    );
    let chunked = [
        "-H",
        "Transfer-Encoding: chunked",
        "--data-binary",
        &upload,
        "http://echo.test/",
    ];
    let reply = curl::request(world.http(), &chunked);
    assert!(
        reply.body.contains("\"length\": 24000000"),
        "{}",
        reply.body
    );
}

#[test]
fn a_stream_is_not_held_back() {
    let (world, echo) = (World::new(), Origin::start("echo", &[]));
    let _agent = world.agent("app", echo.address);
    let mut visitor = Socket::send_to(
        world.http(),
        "GET /stream/3 HTTP/1.1\r\nHost: app.test\r\n\r\n",
    );
    assert!(
        visitor
            .head()
            .to_lowercase()
            .contains("transfer-encoding: chunked")
    );
    for number in 0..3 {
        // The next chunk exists only once this one has been asked for.
        let reply = curl::request(world.http(), &["-X", "POST", "http://app.test/next"]);
        assert_eq!(reply.status, 200);
        visitor.until(format!("chunk {number}\n\r\n"));
    }
    visitor.until("0\r\n\r\n");
}

#[test]
fn trailers_expectations_and_heads_pass() {
    let (world, echo) = (World::new(), Origin::start("echo", &[]));
    let _agent = world.agent("app", echo.address);
    let mut visitor = Socket::send_to(
        world.http(),
        "GET /trailers HTTP/1.1\r\nHost: app.test\r\nTE: trailers\r\n\r\n",
    );
    let all = String::from_utf8(visitor.until("X-Sum: five\r\n\r\n")).unwrap();
    assert!(all.contains("hello"), "{all}");

    visitor.send(
        "POST /sent HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n\
         5\r\nhello\r\n0\r\nX-End: yes\r\n\r\n",
    );
    visitor.head();
    let seen = String::from_utf8(visitor.until("}")).unwrap();
    assert!(seen.contains("[[\"X-End\", \"yes\"]]"), "{seen}");

    let expecting =
        "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let mut visitor = Socket::send_to(world.http(), expecting);
    assert!(visitor.head().starts_with("HTTP/1.1 100 "));
    visitor.send("hello");
    assert!(visitor.head().starts_with("HTTP/1.1 200 "));
    assert!(
        String::from_utf8(visitor.until("}"))
            .unwrap()
            .contains("\"length\": 5")
    );

    let reply = curl::request(world.http(), &["--head", "http://app.test/"]);
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
}

#[test]
fn the_backend_learns_who_the_visitor_is_from_the_edge_alone() {
    let (world, echo) = (World::new(), Origin::start("echo", &[]));
    let _agent = world.agent("app", echo.address);
    let reply = curl::request(
        world.http(),
        &[
            "-H",
            "X-Forwarded-For: 6.6.6.6",
            "-H",
            "X_Forwarded_For: 6.6.6.6",
            "-H",
            "Forwarded: for=6.6.6.6",
            "-H",
            "X-Real-IP: 6.6.6.6",
            "-H",
            "Connection: X-Hop",
            "-H",
            "X-Hop: secret",
            "-H",
            "X-Kept: yes",
            "http://app.test/",
        ],
    );
    assert!(
        !reply.body.contains("6.6.6.6") && !reply.body.contains("X-Hop"),
        "{}",
        reply.body
    );
    for part in [
        "\"X-Kept\", \"yes\"",
        "\"X-Forwarded-For\", \"127.0.0.1\"",
        "\"X-Forwarded-Proto\", \"http\"",
        "\"X-Forwarded-Host\", \"app.test\"",
        "\"X-Request-Id\"",
    ] {
        assert!(reply.body.contains(part), "{part} in {}", reply.body);
    }
}

#[test]
fn websockets_echo_through_the_tunnel() {
    let (world, echo) = (World::new(), Origin::start("websocket", &["serve"]));
    let _agent = world.agent("app", echo.address);
    let mut load = script("crates/testkit/python/websocket.py");
    load.args(["load", "ws://app.test/", &world.http().to_string(), "20"]);
    let ended = Process::run(load);
    assert!(ended.status.success(), "{}", ended.text());
}

/// With default limits, all open at the same time.
#[test]
fn a_thousand_websockets_pass_one_agent() {
    let (world, echo) = (World::new(), Origin::start("websocket", &["serve"]));
    let _agent = world.agent("app", echo.address);
    let mut load = script("crates/testkit/python/websocket.py");
    load.args(["load", "ws://app.test/", &world.http().to_string(), "1000"]);
    let ended = Process::run(load);
    assert!(ended.status.success(), "{}", ended.text());
    assert!(ended.text().contains("echoed 1000"));
}

const UPGRADE: &str =
    "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn a_visitor_may_end_its_direction_and_still_hear_the_answer() {
    let world = World::new();
    let origin = origin(|mut socket| {
        socket.head();
        socket.send(SWITCHED);
        let (heard, in_order) = socket.rest();
        assert!(in_order);
        socket.send([b"heard ", heard.as_slice()].concat());
    });
    let _agent = world.agent("app", origin);
    let mut visitor = Socket::send_to(world.http(), UPGRADE);
    assert!(visitor.head().starts_with("HTTP/1.1 101 "));
    visitor.send("all of it");
    visitor.finish();
    assert_eq!(visitor.rest(), (b"heard all of it".to_vec(), true));
}

#[test]
fn a_service_may_end_its_direction_and_still_hear_the_visitor() {
    let world = World::new();
    let (heard, hears) = std::sync::mpsc::channel();
    let origin = origin(move |mut socket| {
        socket.head();
        socket.send(SWITCHED);
        socket.send("nothing more from me");
        socket.finish();
        heard.send(socket.rest()).unwrap();
    });
    let _agent = world.agent("app", origin);
    let mut visitor = Socket::send_to(world.http(), UPGRADE);
    assert!(visitor.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(visitor.rest(), (b"nothing more from me".to_vec(), true));
    visitor.send("but from me");
    visitor.finish();
    let heard = hears.recv_timeout(wait::DEADLINE).unwrap();
    assert_eq!(heard, (b"but from me".to_vec(), true));
}

#[test]
fn an_answer_that_breaks_off_never_looks_complete() {
    let world = World::new();
    let (go_on, waits) = std::sync::mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let origin = origin(move |mut socket| {
        let framing = if socket.head().starts_with("GET /chunked") {
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        } else {
            "Content-Length: 10\r\n\r\nhello"
        };
        socket.send(format!("HTTP/1.1 200 OK\r\n{framing}"));
        let _ = waits.lock().unwrap().recv_timeout(wait::DEADLINE);
    });
    let _agent = world.agent("app", origin);
    for path in ["chunked", "length"] {
        let request = format!("GET /{path} HTTP/1.1\r\nHost: app.test\r\n\r\n");
        let mut visitor = Socket::send_to(world.http(), request);
        assert!(visitor.head().starts_with("HTTP/1.1 200 "));
        visitor.until("hello");
        go_on.send(()).unwrap();
        let (rest, _) = visitor.rest();
        assert!(
            !rest.ends_with(b"0\r\n\r\n"),
            "{path} ends as if it were whole"
        );
    }
}

#[test]
fn a_service_that_is_down_is_told_to_its_owner_and_not_to_strangers() {
    let world = World::new();
    let agent = world.agent("app", nobody());
    let reply = curl::get(world.http(), "http://app.test/");
    assert_eq!(reply.status, 502);
    assert_unnamed(&reply);
    agent.wait("that its target does not answer", |event| match event {
        AgentEvent::TargetTrouble { why, .. } => Some(why.clone()),
        _ => None,
    });
}

/// Nothing that the door says by itself names the product.
fn assert_unnamed(reply: &curl::Reply) {
    let all = format!("{:?} {}", reply.headers, reply.body).to_lowercase();
    assert!(!all.contains("adit"), "{all}");
}

#[test]
fn refusals_name_nothing() {
    let world = World::new();
    let nginx = Nginx::files();
    let _agent = world.agent("app", nginx.address);
    let unknown = curl::get(world.http(), "http://other.test/");
    assert!((400..500).contains(&unknown.status), "{unknown:?}");
    assert_unnamed(&unknown);
    let foreign = curl::get(world.http(), "http://elsewhere.example/");
    assert_eq!(foreign.status, unknown.status);
    for bytes in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03",
        "GET / HTTP/1.1\nHost: app.test\n\n",
    ] {
        let mut visitor = Socket::send_to(world.http(), bytes);
        visitor.finish();
        let (answer, _) = visitor.rest();
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        assert!(
            text.is_empty() || text.starts_with("http/1.1 400"),
            "{text}"
        );
        assert!(!text.contains("adit"), "{text}");
    }
}

#[test]
fn a_password_is_asked_for_at_the_edge() {
    let (world, echo) = (World::new(), Origin::start("echo", &[]));
    let mut plan = AgentPlan::new(&world, "app", echo.address);
    let Carries::Http { auth, .. } = &mut plan.settings.tunnels[0].carries else {
        panic!("a tunnel for HTTP")
    };
    *auth = Some(Login::parse("user:open sesame").unwrap());
    let agent = world.start_agent(plan);
    agent.wait_live("app");
    let without = curl::get(world.http(), "http://app.test/");
    assert_eq!(without.status, 401);
    assert!(
        without
            .header("www-authenticate")
            .unwrap()
            .starts_with("Basic ")
    );
    let wrong = curl::request(world.http(), &["-u", "user:open", "http://app.test/"]);
    assert_eq!(wrong.status, 401);
    let right = curl::request(
        world.http(),
        &["-u", "user:open sesame", "http://app.test/"],
    );
    assert_eq!(right.status, 200);
    assert!(!right.body.contains("Authorization"), "{}", right.body);
}
