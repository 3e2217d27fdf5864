//! Second tries, idle streams, failing backends.

use super::*;

fn tunnel(world: &World, addresses: &[SocketAddr]) {
    let pool = addresses
        .iter()
        .map(|a| Arc::new(Backend::upstream(&a.to_string())))
        .collect();
    world.pools.pools.lock().unwrap().insert("web".into(), pool);
}

async fn get_web(world: &World, method: &str) -> String {
    let mut guest = world.visit().await;
    guest
        .send(format!(
            "{method} /x HTTP/1.1\r\nHost: web.example.test\r\nContent-Length: 2\r\n\r\nhi"
        ))
        .await;
    guest.answer().await
}

#[tokio::test]
async fn streams_are_used_again_while_they_are_quiet() {
    let world = World::new(plain).await;
    for n in 0..5 {
        assert!(
            world
                .get(&format!("/{n}"))
                .await
                .ends_with(&format!("/{n}"))
        );
    }
    assert_eq!(world.seen.connections(), 1);
}

#[tokio::test]
async fn a_stream_that_ended_or_spoke_is_not_used_again() {
    // The service closes, or says something unasked, after each answer.
    for unasked in ["", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"] {
        let world = World::new(move |mut service: Service| async move {
            let path = service.request().await.unwrap();
            let length = path.len();
            service
                .send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}{unasked}"
                ))
                .await;
        })
        .await;
        for n in 0..5 {
            let mut guest = world.visit().await;
            guest
                .send(format!(
                    "POST /{n} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n"
                ))
                .await;
            let answer = guest.answer().await;
            assert!(answer.ends_with(&format!("\r\n\r\n/{n}")), "{answer}");
            // Until the door's runtime has seen the service's end.
            tokio::task::yield_now().await;
        }
        assert_eq!(world.seen.connections(), 5);
    }
}

#[tokio::test]
async fn what_may_have_been_sent_is_sent_again_only_when_idempotent() {
    // The second request of a connection is read and not answered.
    let world = World::new(|mut service: Service| async move {
        service.request().await;
        service
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        service.request().await;
    })
    .await;
    assert_eq!(status(&world.get("/1").await), 200);
    assert_eq!(status(&world.get("/2").await), 200);
    assert_eq!(world.seen.connections(), 2);
    let mut guest = world.visit().await;
    guest
        .send(format!(
            "POST /3 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\nhi"
        ))
        .await;
    assert_eq!(status(&guest.answer().await), 502);
    assert_eq!(world.seen.text().matches("POST /3").count(), 1);
    assert_eq!(world.metrics().http.retries.get(), 1);
}

#[tokio::test]
async fn an_idempotent_body_is_sent_again_whole() {
    let world = World::new(|mut service: Service| async move {
        service.request().await;
        service
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        service.request().await;
    })
    .await;
    world.get("/1").await;
    let mut guest = world.visit().await;
    guest
        .send(format!(
            "PUT /2 HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        ))
        .await;
    assert_eq!(status(&guest.answer().await), 200);
    assert_eq!(
        world.seen.text().matches("3\r\nabc\r\n0\r\n\r\n").count(),
        2
    );
}

#[tokio::test]
async fn a_backend_that_never_answers_gets_no_request_thrice() {
    let world = World::new(|mut service: Service| async move {
        service.request().await;
    })
    .await;
    for _ in 0..3 {
        assert_eq!(status(&world.get("/x").await), 502);
    }
    assert_eq!(world.seen.connections(), 3);
}

#[tokio::test]
async fn a_backend_that_takes_nothing_is_passed_over() {
    let world = World::new(plain).await;
    let good = service(&world.tasks, world.seen.clone(), plain).await;
    tunnel(&world, &[nowhere().await, good, nowhere().await]);
    for _ in 0..6 {
        // A POST too: nothing was delivered.
        assert_eq!(status(&get_web(&world, "POST").await), 200);
    }
    tunnel(&world, &[nowhere().await, nowhere().await]);
    assert_eq!(status(&get_web(&world, "GET").await), 502);
}

#[tokio::test]
async fn backends_take_turns_each_with_its_idle_streams() {
    let world = World::new(plain).await;
    let (a, b) = (Seen::default(), Seen::default());
    let first = service(&world.tasks, a.clone(), plain).await;
    let second = service(&world.tasks, b.clone(), plain).await;
    tunnel(&world, &[first, second]);
    for _ in 0..6 {
        assert_eq!(status(&get_web(&world, "POST").await), 200);
    }
    for seen in [a, b] {
        assert_eq!(seen.connections(), 1);
        assert_eq!(seen.text().matches("POST /x").count(), 3);
    }
}

#[tokio::test]
async fn a_name_without_a_tunnel_is_told_from_an_unknown_one() {
    let world = World::new(plain).await;
    tunnel(&world, &[]);
    let answer = get_web(&world, "GET").await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("Retry-After: 5\r\n"), "{answer}");
    let mut guest = world.visit().await;
    guest
        .send("GET / HTTP/1.1\r\nHost: other.example.test\r\n\r\n")
        .await;
    let answer = guest.rest().await;
    assert_eq!(status(&answer), 404);
    assert!(answer.ends_with("Content-Length: 0\r\nConnection: close\r\n\r\n"));
}

#[tokio::test]
async fn answers_that_are_no_http_are_a_502() {
    for answer in [
        "SSH-2.0-OpenSSH_9\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
        "",
    ] {
        let world = World::new(move |mut service: Service| async move {
            service.request().await;
            service.send(answer).await;
        })
        .await;
        let mut guest = world.visit().await;
        guest
            .send(format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n"
            ))
            .await;
        let got = guest.answer().await;
        assert_eq!(status(&got), 502, "{answer:?}");
        assert!(got.ends_with("Content-Length: 0\r\n\r\n"), "{got}");
        assert_eq!(world.seen.connections(), 1);
    }
}

#[tokio::test]
async fn an_answer_cut_short_never_looks_complete() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ] {
        for version in ["1.1", "1.0"] {
            let gate = Arc::new(Semaphore::new(0));
            let inner = Arc::clone(&gate);
            let world = World::new(move |mut service: Service| {
                let gate = Arc::clone(&inner);
                async move {
                    service.request().await;
                    service.send(answer).await;
                    // Not before the visitor has read what there is.
                    let _ = gate.acquire().await;
                }
            })
            .await;
            let mut guest = world.visit().await;
            guest
                .send(format!("GET / HTTP/{version}\r\nHost: {HOST}\r\n\r\n"))
                .await;
            guest.until("hello").await;
            gate.add_permits(1);
            let end = loop {
                match guest.more().await {
                    Ok(true) => {}
                    other => break other,
                }
            };
            let kind = end.map_err(|e| e.kind());
            assert_eq!(kind, Err(std::io::ErrorKind::ConnectionReset), "{answer:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn idle_streams_go_when_their_time_is_over() {
    let world = World::new(|mut service: Service| async move {
        while let Some(path) = service.request().await {
            let keep = if path == "/9" {
                "Keep-Alive: timeout=9\r\n"
            } else {
                ""
            };
            service
                .send(format!(
                    "HTTP/1.1 200 OK\r\n{keep}Content-Length: 0\r\n\r\n"
                ))
                .await;
        }
        service.seen.add(service.number, b"|end");
    })
    .await;
    let start = tokio::time::Instant::now();
    for (path, at_least, at_most) in [("/", 4, 6), ("/9", 8, 10)] {
        let begin = start.elapsed();
        world.get(path).await;
        let count = world.seen.connections();
        while world.seen.text().matches("|end").count() < count {
            pass(Duration::from_millis(100)).await;
        }
        let lived = (start.elapsed() - begin).as_secs();
        assert!((at_least..=at_most).contains(&lived), "{path} {lived}");
    }
}

#[tokio::test]
async fn a_door_that_is_torn_down_cuts_what_is_under_way() {
    let world = World::new(|mut service: Service| async move {
        service.request().await;
        service.send("HTTP/1.1 200 OK\r\n\r\nhello").await;
        service.more().await;
    })
    .await;
    let mut guest = world.visit().await;
    guest
        .send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"))
        .await;
    guest.until("hello").await;
    world.tasks.stopping().cancel();
    let kind = guest.more().await.map_err(|e| e.kind());
    assert_eq!(kind, Err(std::io::ErrorKind::ConnectionReset));
}
