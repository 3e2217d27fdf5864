//! Limits, passwords, redirects, headers, statistics, the log.

use super::*;
use crate::http::TURNED_AWAY;
use crate::metrics::LimitRefusal;
use adit_config::LogFormat;
use adit_routing::Redirect;

#[tokio::test]
async fn requests_above_the_limit_get_a_429() {
    let limits = LimitSettings {
        requests_per_second: 2,
        ..LimitSettings::default()
    };
    let world = World::with(plain, |_| {}, limits, RouteOptions::default()).await;
    let mut guest = world.visit().await;
    let mut found = Vec::new();
    for _ in 0..4 {
        guest.get("/").await;
        let answer = guest.answer().await;
        found.push(status(&answer));
        assert_eq!(answer.contains("Retry-After: "), status(&answer) == 429);
    }
    assert!(found.contains(&200) && found.contains(&429), "{found:?}");
}

#[tokio::test]
async fn connections_above_the_limit_get_a_429() {
    let limits = LimitSettings {
        connections_per_address: 2,
        ..LimitSettings::default()
    };
    let world = World::with(plain, |_| {}, limits, RouteOptions::default()).await;
    let mut first = world.visit().await;
    let mut second = world.visit().await;
    for guest in [&mut first, &mut second] {
        guest.get("/").await;
        assert_eq!(status(&guest.answer().await), 200);
    }
    let mut third = world.visit().await;
    assert_eq!(status(&third.rest().await), 429);
    drop(first);
    // The door notices the end of the first in its own time.
    while {
        let mut next = world.visit().await;
        next.get("/").await;
        status(&next.answer().await) == 429
    } {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_password_opens_the_route_and_stays_at_the_door() {
    let options = RouteOptions {
        auth: Some("user:hash of secret".into()),
        ..RouteOptions::default()
    };
    let world = World::with(plain, |_| {}, LimitSettings::default(), options).await;
    let mut guest = world.visit().await;
    let ask = |credentials: &str| {
        let encoded = data_encoding::BASE64.encode(credentials.as_bytes());
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Basic {encoded}\r\n\r\n")
    };
    guest.get("/").await;
    let answer = guest.answer().await;
    assert_eq!(status(&answer), 401);
    assert!(
        answer.contains("WWW-Authenticate: Basic realm="),
        "{answer}"
    );
    for (credentials, expected) in [
        ("user:wrong", 401),
        ("other:secret", 401),
        ("user:secret", 200),
        ("user:secret", 200),
    ] {
        guest.send(ask(credentials)).await;
        assert_eq!(status(&guest.answer().await), expected, "{credentials}");
    }
    assert_eq!(world.passwords.checks.load(Ordering::Relaxed), 3);
    assert!(!world.seen.text().contains("Authorization"));
}

#[tokio::test]
async fn a_redirect_needs_no_backend() {
    let route = Route {
        host: HostName::parse("old.test").unwrap(),
        path: PathPrefix::default(),
        target: Target::Redirect(Redirect::parse("https://new.test").unwrap()),
        options: RouteOptions::default(),
    };
    let (tasks, seen) = (Tasks::new(), Seen::default());
    let world = World::routed(vec![route], tasks, seen, |_| {}, LimitSettings::default()).await;
    let mut guest = world.visit().await;
    guest
        .send("GET /a?b HTTP/1.1\r\nHost: Old.test:80\r\n\r\n")
        .await;
    let answer = guest.answer().await;
    assert_eq!(status(&answer), 308);
    assert!(
        answer.contains("Location: https://new.test/a?b\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_new_table_is_used_by_the_next_request() {
    let world = World::new(plain).await;
    let mut guest = world.visit().await;
    guest.get("/").await;
    assert_eq!(status(&guest.answer().await), 200);
    let empty = RouteTable::new(Domain::parse("other.test").unwrap(), vec![]).unwrap();
    world.door.set_table(empty);
    guest.get("/").await;
    assert_eq!(status(&guest.answer().await), 404);
}

#[tokio::test]
async fn the_signed_path_is_answered_and_an_unsigned_one_is_not_ours() {
    let world = World::new(plain).await;
    let ask = |host: &str, target: &str, signature: &str| {
        format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Adit-Timestamp: 1\r\n\
             X-Adit-Nonce: 2\r\nX-Adit-Signature: {signature}\r\n\r\n"
        )
    };
    for host in [HOST, "unknown.test"] {
        let mut guest = world.visit().await;
        guest.send(ask(host, "/_sys/sync_stats", "right")).await;
        let answer = guest.answer().await;
        assert!(answer.ends_with("\r\n\r\nsealed"), "{answer}");
    }
    for (target, signature) in [
        ("/_sys/sync_stats", "wrong"),
        ("/_sys/sync_stats?a", "right"),
        ("/_sys/sync_stats/", "right"),
    ] {
        let mut guest = world.visit().await;
        guest.send(ask(HOST, target, signature)).await;
        assert_eq!(status(&guest.answer().await), 200);
        let mut guest = world.visit().await;
        guest.send(ask("unknown.test", target, signature)).await;
        assert_eq!(status(&guest.answer().await), 404);
    }
    assert_eq!(world.seen.text().matches("GET /_sys/sync_stats").count(), 3);
}

#[tokio::test]
async fn forwarded_headers_are_believed_from_trusted_proxies_only() {
    let ask = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 6.6.6.6, 9.9.9.9\r\n\
         X-Forwarded-Proto: https\r\nX-Request-Id: mine\r\n\r\n"
    );
    let world = World::new(plain).await;
    let mut guest = world.visit().await;
    guest.send(&ask).await;
    guest.answer().await;
    let seen = world.seen.text();
    for line in [
        "X-Forwarded-For: 127.0.0.1\r\n",
        "X-Forwarded-Proto: http\r\n",
    ] {
        assert!(seen.contains(line), "{seen}");
    }
    assert!(!seen.contains("mine"), "{seen}");
    let trust = |parts: &mut DoorParts| {
        parts.settings.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    };
    let limits = LimitSettings::default();
    let world = World::with(plain, trust, limits, RouteOptions::default()).await;
    let mut guest = world.visit().await;
    guest.send(&ask).await;
    guest.answer().await;
    let seen = world.seen.text();
    for line in [
        "X-Forwarded-For: 9.9.9.9, 127.0.0.1\r\n",
        "X-Forwarded-Proto: https\r\n",
        "X-Real-IP: 9.9.9.9\r\n",
        "X-Request-Id: mine\r\n",
    ] {
        assert!(seen.contains(line), "{line}{seen}");
    }
}

#[tokio::test]
async fn the_backends_own_address_stays_inside() {
    let options = RouteOptions {
        host_header: Some("inner.test:3000".into()),
        ..RouteOptions::default()
    };
    let serve = |mut service: Service| async move {
        service.request().await;
        let own = service.socket.local_addr().unwrap();
        service
            .send(format!(
                "HTTP/1.1 302 Found\r\nServer: x\r\nLocation: http://inner.test:3000/a\r\n\
                 Content-Location: http://{own}/b\r\nSet-Cookie: a=b; Domain=inner.test\r\n\
                 Content-Length: 0\r\n\r\n"
            ))
            .await;
    };
    let world = World::with(serve, |_| {}, LimitSettings::default(), options).await;
    let mut guest = world.visit().await;
    guest
        .send(format!("GET / HTTP/1.1\r\nHost: {HOST}:8080\r\n\r\n"))
        .await;
    let answer = guest.answer().await;
    for line in [
        format!("Location: http://{HOST}:8080/a\r\n"),
        format!("Content-Location: http://{HOST}:8080/b\r\n"),
        "Set-Cookie: a=b\r\n".to_owned(),
    ] {
        assert!(answer.contains(&line), "{answer}");
    }
    assert!(!answer.contains("Server"), "{answer}");
    assert!(world.seen.text().contains("Host: inner.test:3000\r\n"));
}

#[tokio::test]
async fn a_body_above_the_limit_gets_a_413() {
    let small = |parts: &mut DoorParts| parts.settings.body_bytes = Some(10);
    let limits = LimitSettings::default();
    let world = World::with(plain, small, limits, RouteOptions::default()).await;
    for (framing, body, expected) in [
        ("Content-Length: 10", "0123456789", 200),
        ("Content-Length: 11", "0123456789a", 413),
        (
            "Transfer-Encoding: chunked",
            "5\r\n01234\r\n5\r\n01234\r\n0\r\n\r\n",
            200,
        ),
        (
            "Transfer-Encoding: chunked",
            "b\r\n0123456789a\r\n0\r\n\r\n",
            413,
        ),
    ] {
        let mut guest = world.visit().await;
        guest
            .send(format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n{body}"
            ))
            .await;
        assert_eq!(status(&guest.answer().await), expected, "{framing} {body}");
    }
}

/// A sink that tests can read.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_request_leaves_a_line() {
    let lines = Lines::default();
    let sink = lines.clone();
    let form = crate::access::Form {
        format: LogFormat::Json,
        queries: true,
    };
    let log = move |parts: &mut DoorParts| {
        parts.log = Some(AccessLog::start(form, sink).unwrap());
    };
    let limits = LimitSettings::default();
    let world = World::with(plain, log, limits, RouteOptions::default()).await;
    let mut guest = world.visit().await;
    guest.get("/path?q=1").await;
    guest.answer().await;
    guest
        .send("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n")
        .await;
    guest.rest().await;
    let mut guest = world.visit().await;
    guest
        .send("GET / HTTP/1.1\r\nHost: unknown.test\r\n\r\n")
        .await;
    guest.rest().await;
    while lines
        .0
        .lock()
        .unwrap()
        .iter()
        .filter(|b| **b == b'\n')
        .count()
        < 3
    {
        tokio::task::yield_now().await;
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let values: Vec<serde_json::Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let first = &values[0];
    assert_eq!(first["path"], "/path");
    assert_eq!(first["query"], "q=1");
    assert_eq!(first["status"], 200);
    assert_eq!(first["host"], HOST);
    assert!(first["backend"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(world.seen.text().contains(first["id"].as_str().unwrap()));
    assert_eq!(values[1]["status"], 400);
    assert_eq!(values[1]["fault"], "a header line is malformed");
    assert_eq!(values[2]["status"], 404);
    assert_eq!(values[2]["fault"], "no such host");
}

#[tokio::test]
async fn a_full_door_closes_at_once_until_a_place_is_free() {
    let one = |parts: &mut DoorParts| parts.places = Arc::new(Semaphore::new(1));
    let world = World::with(
        plain,
        one,
        LimitSettings::default(),
        RouteOptions::default(),
    )
    .await;
    let mut first = world.visit().await;
    first.get("/").await;
    first.answer().await;
    assert_eq!(world.visit().await.rest().await, "");
    let refused = &world.metrics().limits.refused;
    assert_eq!(refused.of(LimitRefusal::Full).get(), 1);
    drop(first);
    loop {
        let mut next = world.visit().await;
        let asked = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        // The place may not be free yet.
        let sent = next.socket.write_all(asked.as_bytes()).await;
        let mut answer = Vec::new();
        let read = next.socket.read_to_end(&mut answer).await;
        if sent.is_ok() && read.is_ok() && answer.starts_with(b"HTTP/1.1 200 ") {
            break;
        }
    }
}

#[tokio::test]
async fn refusals_are_explained_to_so_many_at_a_time() {
    let limits = LimitSettings {
        connections_per_address: 1,
        ..LimitSettings::default()
    };
    let world = World::with(plain, |_| {}, limits, RouteOptions::default()).await;
    let mut first = world.visit().await;
    first.get("/").await;
    first.answer().await;
    assert_eq!(status(&world.visit().await.rest().await), 429);
    let all = u32::try_from(TURNED_AWAY).unwrap();
    let taken = world.door.turned_away.acquire_many(all).await.unwrap();
    assert_eq!(world.visit().await.rest().await, "");
    drop(taken);
    assert_eq!(status(&world.visit().await.rest().await), 429);
}

/// The host is the owner's own word, whoever is connected.
#[tokio::test]
async fn a_route_without_its_agents_is_known() {
    let routes = vec![Route {
        host: HostName::parse(HOST).unwrap(),
        path: PathPrefix::default(),
        target: Target::Tunnel(TunnelName::parse("away").unwrap()),
        options: RouteOptions::default(),
    }];
    let (tasks, limits) = (Tasks::new(), LimitSettings::default());
    let world = World::routed(routes, tasks, Seen::default(), |_| {}, limits).await;
    let answer = world.get("/").await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("Retry-After: "), "{answer}");
}

#[tokio::test]
async fn a_balancer_announces_its_visitors() {
    let from_here = |parts: &mut DoorParts| {
        parts.balancers = Balancers::new(vec!["127.0.0.0/8".parse().unwrap()]);
    };
    let (limits, options) = (LimitSettings::default(), RouteOptions::default());
    let world = World::with(plain, from_here, limits, options).await;
    let mut guest = world.visit().await;
    guest
        .send("PROXY TCP4 192.0.2.7 127.0.0.1 4660 80\r\n")
        .await;
    guest.get("/").await;
    assert_eq!(status(&guest.answer().await), 200);
    let seen = world.seen.text();
    assert!(seen.contains("X-Forwarded-For: 192.0.2.7\r\n"), "{seen}");
    // A visitor of the balancer's that it does not announce gets nothing.
    let mut unannounced = world.visit().await;
    unannounced.get("/").await;
    let mut rest = Vec::new();
    // Closed with bytes unread: an end or a reset, but no answer.
    let _ = unannounced.socket.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
    assert_eq!(world.seen.connections(), 1);
}
