use super::*;
use crate::limits::LimitSettings;
use crate::rules::RuleSpec;

struct World {
    rules: Arc<Rules>,
    address: SocketAddr,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    serving: JoinSet<Result<(), ApiError>>,
}

/// One tunnel for guests.
fn rules() -> Arc<Rules> {
    let guests_only = RuleSpec {
        guests_only: true,
        ..RuleSpec::default()
    };
    let ssh = TunnelName::parse("ssh").unwrap();
    Arc::new(Rules::new(
        [(ssh, guests_only)],
        None,
        Vec::new(),
        Instant::now(),
    ))
}

async fn world() -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Arc::new(Metrics::new());
    metrics.set_phase(Phase::Ready);
    let limits = Limits::new(
        LimitSettings::default(),
        Arc::clone(&metrics),
        Instant::now(),
    );
    limits.ban(
        "192.0.2.1".parse().unwrap(),
        Duration::from_secs(60),
        Instant::now(),
    );
    let rules = rules();
    let door = Arc::new(ApiDoor {
        metrics: Arc::clone(&metrics),
        limits,
        rules: Arc::clone(&rules),
        ledger: Arc::default(),
    });
    let stop = CancellationToken::new();
    let mut serving = JoinSet::new();
    serving.spawn(serve(listener, door, stop.clone()));
    World {
        rules,
        address,
        metrics,
        stop,
        serving,
    }
}

async fn ask(world: &World, request: &str) -> String {
    let mut socket = TcpStream::connect(world.address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

#[tokio::test]
async fn metrics_and_health_are_shown() {
    let world = world().await;
    let host = world.address.to_string();
    let page = ask(&world, &get("/metrics", &host)).await;
    assert_eq!(status(&page), "200");
    assert!(page.contains("\nadit_banned_addresses 1\n"), "{page}");
    assert!(page.contains("\nadit_connections_open{door=\"api\"} 1\n"));
    let health = ask(&world, &get("/_sys/health", "localhost")).await;
    let body = health.split_once("\r\n\r\n").unwrap().1;
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((status(&health), &body["status"]), ("200", &"ok".into()));
    world.metrics.set_phase(Phase::Draining);
    let health = ask(&world, &get("/_sys/health", "localhost")).await;
    assert_eq!(status(&health), "503");
}

#[tokio::test]
async fn a_head_is_answered_as_its_get_without_the_body() {
    let world = world().await;
    for (path, expected) in [("/metrics", "200"), ("/_sys/health", "200"), ("/x", "404")] {
        let asked = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = ask(&world, &asked).await;
        assert_eq!(status(&answer), expected, "{path}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        let empty = answer.contains("\r\nContent-Length: 0\r\n");
        assert_eq!(empty, expected == "404", "{answer}");
    }
}

#[tokio::test]
async fn a_guest_is_let_in_by_headers_of_its_own() {
    let world = world().await;
    let post =
        |headers: &str| format!("POST /_sys/guests HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let of = |tunnel: &str, address: &str, minutes: &str| {
        post(&format!(
            "X-Adit-Tunnel: {tunnel}\r\nX-Adit-Address: {address}\r\nX-Adit-Minutes: {minutes}\r\n"
        ))
    };
    let ssh = TunnelName::parse("ssh").unwrap();
    let enter = || {
        let rule = world.rules.of(&ssh, Instant::now()).unwrap();
        rule.enter("192.0.2.7".parse().unwrap(), Instant::now())
    };
    let bad = [
        post(""),
        // What a form of a strange page could send.
        "POST /_sys/guests?tunnel=ssh&address=192.0.2.7&minutes=5 HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        of("ssh", "192.0.2.7", "0"),
        of("ssh", "192.0.2.7", "1441"),
        of("ssh", "192.0.2.0/24", "5"),
        of("no name", "192.0.2.7", "5"),
    ];
    for request in &bad {
        let answer = ask(&world, request).await;
        assert!(["400", "404"].contains(&status(&answer)), "{request}");
    }
    assert!(enter().is_err());
    let strange = of("ssh", "192.0.2.7", "5").replace("localhost", "evil.example");
    assert_eq!(status(&ask(&world, &strange).await), "421");
    let open = ask(&world, &of("app", "192.0.2.7", "5")).await;
    assert_eq!(status(&open), "409");
    assert!(open.contains("guests_only"), "{open}");
    assert!(enter().is_err());
    assert_eq!(
        status(&ask(&world, &of("ssh", "192.0.2.7", "5")).await),
        "200"
    );
    assert!(enter().is_ok());
}

#[tokio::test]
async fn a_name_from_elsewhere_learns_nothing() {
    let world = world().await;
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "0.0.0.0",
        "192.0.2.1",
        "[::2]",
        "[::1",
        "[::1]x",
        "localhost:99999",
        "localhost:+1",
        "localhost:80:80",
        "127.1",
        "",
    ] {
        for path in ["/metrics", "/_sys/health", "/nothing"] {
            let answer = ask(&world, &get(path, host)).await;
            assert_eq!(status(&answer), "421", "{host} {path}");
            assert!(answer.ends_with("\r\n\r\n"));
        }
    }
    for host in ["LOCALHOST:9090", "127.8.8.8", "[::1]:9090", "localhost:"] {
        let answer = ask(&world, &get("/_sys/health", host)).await;
        assert_eq!(status(&answer), "200", "{host}");
    }
}

#[tokio::test]
async fn everything_else_is_refused() {
    let world = world().await;
    let cases = [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
        ("GET /metrics?x HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
        (
            "GET http://localhost/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "404",
        ),
        ("GET /metrics HTTP/1.1\r\n\r\n", "400"),
        (
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
            "400",
        ),
        (
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
            "400",
        ),
        (
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400",
        ),
        ("GET /metrics\r\n\r\n", "400"),
        ("\x16\x03\x01\x00\x00", "400"),
    ];
    for (request, expected) in cases {
        assert_eq!(status(&ask(&world, request).await), expected, "{request:?}");
    }
    let many = "X: y\r\n".repeat(MAX_FIELDS + 1);
    let many = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    assert_eq!(status(&ask(&world, &many).await), "431");
    let large = format!("GET /metrics HTTP/1.1\r\nX: {}", "y".repeat(2 * MAX_HEAD));
    assert_eq!(status(&ask(&world, &large).await), "431");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_closed_and_others_come_through() {
    let mut world = world().await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }
    let health = ask(&world, &get("/_sys/health", "localhost")).await;
    assert_eq!(status(&health), "200");
    for mut socket in silent {
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty());
    }
    world.stop.cancel();
    assert!(world.serving.join_next().await.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn the_door_does_not_stand_where_others_reach_it() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let metrics = Arc::new(Metrics::new());
    let limits = Limits::new(
        LimitSettings::default(),
        Arc::clone(&metrics),
        Instant::now(),
    );
    let door = Arc::new(ApiDoor {
        metrics,
        limits,
        rules: rules(),
        ledger: Arc::default(),
    });
    let refused = serve(listener, door, CancellationToken::new()).await;
    assert!(matches!(refused, Err(ApiError::NotLoopback(_))));
}
