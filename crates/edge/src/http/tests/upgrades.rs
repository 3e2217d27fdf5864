//! WebSocket and other upgrades.

use super::*;

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: app.example.test\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: k\r\n\r\n";
const AGREE: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";

#[tokio::test]
async fn bytes_flow_only_after_the_101() {
    let gate = Arc::new(Semaphore::new(0));
    let inner = Arc::clone(&gate);
    let world = World::new(move |mut service: Service| {
        let gate = Arc::clone(&inner);
        async move {
            service.head().await;
            gate.acquire().await.unwrap().forget();
            assert!(service.held.is_empty());
            service.send(format!("{AGREE}hello")).await;
            while service.more().await {
                let held = std::mem::take(&mut service.held);
                service.send(held).await;
            }
            // The visitor's end came; ours comes after a last word.
            service.send("bye").await;
        }
    })
    .await;
    let mut guest = world.visit().await;
    guest.send(format!("{ASK}early")).await;
    while !world.seen.text().ends_with("\r\n\r\n") {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    let head = guest.head().await;
    assert!(
        head.contains("Upgrade: WebSocket\r\nConnection: Upgrade\r\n"),
        "{head}"
    );
    guest.until("helloearly").await;
    guest.send("ping").await;
    guest.until("ping").await;
    guest.finish().await;
    assert_eq!(guest.rest().await, "bye");
}

#[tokio::test]
async fn the_services_end_leaves_the_visitors_direction_open() {
    let world = World::new(|mut service: Service| async move {
        service.head().await;
        service.send(format!("{AGREE}done")).await;
        service.socket.shutdown().await.unwrap();
        while service.more().await {}
        assert_eq!(service.held, b"still here");
        service.seen.add(service.number, b"|end");
    })
    .await;
    let mut guest = world.visit().await;
    guest.send(ASK).await;
    guest.head().await;
    assert_eq!(guest.rest().await, "done");
    guest.send("still here").await;
    guest.finish().await;
    while !world.seen.text().ends_with("|end") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_service_that_vanishes_is_no_clean_end() {
    let world = World::new(|mut service: Service| async move {
        service.head().await;
        service.send(AGREE).await;
        service.more().await;
        socket2::SockRef::from(&service.socket)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    })
    .await;
    let mut guest = world.visit().await;
    guest.send(ASK).await;
    guest.head().await;
    guest.send("x").await;
    let end = loop {
        match guest.more().await {
            Ok(true) => {}
            other => break other,
        }
    };
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_upgrade_that_is_not_made_is_a_request_like_any_other() {
    let world = World::new(plain).await;
    let mut guest = world.visit().await;
    for _ in 0..2 {
        guest.send(ASK).await;
        assert!(guest.answer().await.ends_with("/ws"));
    }
    // No stream is used again behind a doubt.
    assert_eq!(world.seen.connections(), 2);
}

#[tokio::test]
async fn a_101_that_was_not_asked_for_is_refused() {
    let world = World::new(|mut service: Service| async move {
        service.request().await;
        service.send(AGREE).await;
        service.more().await;
    })
    .await;
    assert_eq!(status(&world.get("/").await), 502);
    let mut guest = world.visit().await;
    guest.send(ASK.replace("websocket", "other")).await;
    assert_eq!(status(&guest.answer().await), 502);
    assert!(!world.seen.text().contains("other"));
}

#[tokio::test]
async fn a_route_may_let_other_protocols_through_or_none() {
    for (upgrades, passes) in [
        (adit_routing::Upgrades::Any, true),
        (adit_routing::Upgrades::None, false),
    ] {
        let options = RouteOptions {
            upgrades,
            ..RouteOptions::default()
        };
        let limits = LimitSettings::default();
        let world = World::with(plain, |_| {}, limits, options).await;
        for protocol in ["websocket", "foo/2"] {
            let mut guest = world.visit().await;
            guest.send(ASK.replace("websocket", protocol)).await;
            assert_eq!(status(&guest.answer().await), 200);
            let line = format!("Upgrade: {protocol}\r\n");
            assert_eq!(world.seen.text().contains(&line), passes);
        }
    }
}

#[tokio::test]
async fn a_thousand_idle_upgrades_hold_no_buffers() {
    let world = World::new(|mut service: Service| async move {
        service.head().await;
        service.send(AGREE).await;
        while service.more().await {
            let held = std::mem::take(&mut service.held);
            service.send(held).await;
        }
    })
    .await;
    let mut guests = Vec::new();
    for _ in 0..300 {
        let mut guest = world.visit().await;
        guest.send(ASK).await;
        guest.head().await;
        guests.push(guest);
    }
    assert_eq!(world.metrics().http.upgraded.get(), 300);
    assert_eq!(world.metrics().http.active.get(), 0);
    for (n, guest) in guests.iter_mut().enumerate() {
        guest.send(format!("<{n}>")).await;
    }
    for (n, guest) in guests.iter_mut().enumerate() {
        assert_eq!(guest.until(">").await, format!("<{n}>"));
    }
}

/// Knows one id and keeps what it is given.
#[derive(Default)]
pub(super) struct Links(Mutex<Vec<([u8; 8], Upgraded)>>);

impl Links {
    /// The next one.
    pub(super) async fn taken(&self) -> ([u8; 8], Upgraded) {
        loop {
            if let Some(taken) = self.0.lock().unwrap().pop() {
                return taken;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl LinkUpgrade for Links {
    fn knows(&self, id: [u8; 8]) -> bool {
        id == [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]
    }

    fn take(&self, id: [u8; 8], upgraded: Upgraded) {
        self.0.lock().unwrap().push((id, upgraded));
    }
}

/// The example of RFC 6455 §1.3.
pub(super) fn ask_for_link(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn who_knows_a_link_is_handed_over_whole() {
    let world = World::new(plain).await;
    let links = Arc::<Links>::default();
    world.door.set_link_upgrade(Arc::clone(&links) as _);
    let mut guest = world.visit().await;
    // The connection has served requests before.
    guest.get("/before").await;
    assert!(guest.answer().await.ends_with("/before"));
    let ask = ask_for_link("/0123456789abcdef", "");
    guest.send(format!("{ask}frames")).await;
    let head = guest.head().await;
    assert!(
        head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{head}"
    );
    let (id, mut upgraded) = links.taken().await;
    assert!(links.knows(id));
    assert_eq!(upgraded.early, b"frames");
    guest.send("more").await;
    let mut more = [0; 4];
    upgraded.transport.read_exact(&mut more).await.unwrap();
    assert_eq!(&more, b"more");
    upgraded.transport.write_all(b"back").await.unwrap();
    assert_eq!(guest.until("back").await, "back");
    drop(upgraded);
    assert_eq!(guest.rest().await, "");
    // Neither a request nor a visitor any more.
    let http = &world.metrics().http;
    assert_eq!(
        (http.requests.sum(), http.active.get(), http.upgrades.get()),
        (1, 0, 0)
    );
}

#[tokio::test]
async fn who_knows_none_is_a_visitor_like_any_other() {
    let world = World::new(plain).await;
    world.door.set_link_upgrade(Arc::new(Links::default()) as _);
    let known = "/0123456789abcdef";
    for ask in [
        ask_for_link("/0123456789abcdee", ""),
        ask_for_link("/0123456789ABCDEF", ""),
        ask_for_link("/0123456789abcdef0", ""),
        ask_for_link("/0123456789abcdef?", ""),
        ask_for_link("/", ""),
        ask_for_link(known, "Sec-WebSocket-Version: 13\r\n"),
        ask_for_link(known, "").replace("Version: 13", "Version: 8"),
        ask_for_link(known, "").replace("ub25jZQ==", ""),
        ask_for_link(known, "").replace("GET", "POST"),
        ask_for_link(known, "").replace("websocket", "other"),
    ] {
        let mut guest = world.visit().await;
        guest.send(&ask).await;
        // The service knows no WebSocket and answers with the path.
        let answer = guest.answer().await;
        assert_eq!(status(&answer), 200, "{ask}\n{answer}");
    }
}
