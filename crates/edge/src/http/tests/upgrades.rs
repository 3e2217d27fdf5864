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
