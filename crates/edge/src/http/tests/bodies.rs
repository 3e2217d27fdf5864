//! Bodies: streamed both ways, delimited in every way there is.

use super::*;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// Sends back what it got: `/chunked` in chunks, else with its length.
async fn echo(mut service: Service) {
    while let Some((head, bytes)) = service.head().await {
        let request = head.view(&bytes);
        let chunked = request.target().path == b"/chunked";
        let framing = request.framing();
        let body = service.body(framing).await;
        if chunked {
            service
                .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            for piece in body.chunks(50_000) {
                service.send(format!("{:x}\r\n", piece.len())).await;
                service.send(piece).await;
                service.send("\r\n").await;
            }
            service.send("0\r\n\r\n").await;
        } else {
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            service.send(head).await;
            service.send(&body).await;
        }
    }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let (mut body, mut data) = (Body::new(Framing::Chunked), Vec::new());
    while !body.is_done() {
        let step = body.decode(bytes).unwrap();
        data.extend_from_slice(&bytes[step.data]);
        bytes = &bytes[step.consumed..];
    }
    data
}

#[tokio::test]
async fn large_bodies_arrive_whole() {
    let world = World::new(echo).await;
    let data = pattern(5_000_000);
    for (path, chunked_up) in [
        ("/", false),
        ("/chunked", false),
        ("/", true),
        ("/chunked", true),
    ] {
        let guest = world.visit().await;
        let (mut read, mut write) = guest.socket.into_split();
        let mut wire = format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\n").into_bytes();
        if chunked_up {
            wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for piece in data.chunks(77_777) {
                wire.extend_from_slice(format!("{:X};x=y\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
        } else {
            let length = format!("Content-Length: {}\r\n\r\n", data.len());
            wire.extend_from_slice(length.as_bytes());
            wire.extend_from_slice(&data);
        }
        let mut got = Vec::new();
        let (sent, received) = tokio::join!(
            async {
                write.write_all(&wire).await.unwrap();
                write.shutdown().await
            },
            read.read_to_end(&mut got)
        );
        sent.unwrap();
        received.unwrap();
        let end = got.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let body = if path == "/chunked" {
            dechunk(&got[end..])
        } else {
            got[end..].to_vec()
        };
        assert!(body == data, "{path} {chunked_up}");
    }
}

#[tokio::test]
async fn nothing_waits_for_the_end_of_a_body() {
    // Each side sends the next piece only when the last one arrived.
    let world = World::new(|mut service: Service| async move {
        service.head().await;
        service
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        for round in 0..5 {
            let piece = format!("up{round}");
            while !service.held.ends_with(format!("{piece}\r\n").as_bytes()) {
                assert!(service.more().await);
            }
            service.send(format!("5\r\ndown{round}\r\n")).await;
        }
        while !service.held.ends_with(b"0\r\n\r\n") {
            assert!(service.more().await);
        }
        service.send("0\r\n\r\n").await;
    })
    .await;
    let mut guest = world.visit().await;
    guest
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ))
        .await;
    for round in 0..5 {
        guest.send(format!("3\r\nup{round}\r\n")).await;
        guest.until(&format!("down{round}\r\n")).await;
    }
    guest.send("0\r\n\r\n").await;
    guest.until("0\r\n\r\n").await;
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let world = World::new(|mut service: Service| async move {
        service.request().await;
        service
            .send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                 2\r\nok\r\n0\r\nX-Sum: 9\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
            )
            .await;
        service.more().await;
    })
    .await;
    let mut guest = world.visit().await;
    guest
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n\
             1\r\nx\r\n0\r\nX-Up: 1\r\n\r\n"
        ))
        .await;
    guest.until("2\r\nok\r\n0\r\nX-Sum: 9\r\n\r\n").await;
    let seen = world.seen.text();
    assert!(seen.contains("1\r\nx\r\n0\r\nX-Up: 1\r\n\r\n"), "{seen}");
    assert!(
        seen.contains("TE: trailers\r\nConnection: TE\r\n"),
        "{seen}"
    );
}

#[tokio::test]
async fn answers_without_a_body_keep_the_connection() {
    let world = World::new(|mut service: Service| async move {
        while let Some((head, bytes)) = service.head().await {
            let request = head.view(&bytes);
            let answer: &str = match request.target().path {
                b"/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                b"/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n",
                b"/0" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
            };
            service.send(answer).await;
        }
    })
    .await;
    let mut guest = world.visit().await;
    for (method, path, sign) in [
        ("HEAD", "/", "Content-Length: 99\r\n"),
        ("GET", "/204", "204 No Content"),
        ("GET", "/304", "Content-Length: 77\r\n"),
        ("GET", "/0", "Content-Length: 0\r\n"),
        ("HEAD", "/", "200 OK"),
    ] {
        guest
            .send(format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .await;
        let head = guest.head().await;
        assert!(
            head.contains(sign) && !head.contains("Connection"),
            "{head}"
        );
    }
    assert_eq!(world.seen.connections(), 1);
}

#[tokio::test]
async fn an_answer_until_the_end_gets_chunks_or_an_end() {
    let world = World::new(|mut service: Service| async move {
        service.request().await;
        service.send("HTTP/1.1 200 OK\r\n\r\nhello").await;
    })
    .await;
    let mut modern = world.visit().await;
    modern.get("/").await;
    let text = modern.answer().await;
    assert!(text.contains("Transfer-Encoding: chunked\r\n"), "{text}");
    assert!(text.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{text}");
    let mut old = world.visit().await;
    old.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"))
        .await;
    let text = old.rest().await;
    assert!(text.contains("Connection: close\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\nhello"), "{text}");
}

#[tokio::test]
async fn an_old_visitor_gets_no_chunks() {
    let world = World::new(echo).await;
    let mut guest = world.visit().await;
    guest
        .send(format!(
            "POST /chunked HTTP/1.0\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\nabc"
        ))
        .await;
    let text = guest.rest().await;
    assert!(text.ends_with("\r\n\r\nabc"), "{text}");
    assert!(!text.contains("chunked"), "{text}");
    let mut guest = world.visit().await;
    for _ in 0..2 {
        guest
            .send(format!(
                "POST / HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc"
            ))
            .await;
        let text = guest.answer().await;
        assert!(text.contains("Connection: keep-alive\r\n"), "{text}");
    }
}

#[tokio::test]
async fn a_hundred_is_asked_for_and_passed_on() {
    let world = World::new(|mut service: Service| async move {
        while let Some((head, bytes)) = service.head().await {
            let request = head.view(&bytes);
            if request.target().path == b"/no" {
                service
                    .send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
                    .await;
                return;
            }
            assert!(service.held.is_empty());
            service.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            let framing = request.framing();
            let body = service.body(framing).await;
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            service.send(head).await;
            service.send(&body).await;
        }
    })
    .await;
    let mut guest = world.visit().await;
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        guest
            .send(format!(
                "PUT / HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\n{framing}\r\n\r\n"
            ))
            .await;
        assert_eq!(guest.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        let chunked = framing.contains("chunked");
        guest
            .send(if chunked {
                "5\r\nhello\r\n0\r\n\r\n"
            } else {
                "hello"
            })
            .await;
        let answer = guest.answer().await;
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    }
    guest
        .send(format!(
            "PUT /no HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        ))
        .await;
    let answer = guest.rest().await;
    assert_eq!(status(&answer), 413);
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn an_early_answer_to_a_long_upload_arrives() {
    let world = World::new(|mut service: Service| async move {
        service.head().await;
        service
            .send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
            .await;
    })
    .await;
    let guest = world.visit().await;
    let (mut read, mut write) = guest.socket.into_split();
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3000000\r\n\r\n");
    let mut got = Vec::new();
    let (_, received) = tokio::join!(
        async {
            write.write_all(head.as_bytes()).await.unwrap();
            // The door stops reading at some point, as it should.
            let _ = write.write_all(&pattern(200_000)).await;
        },
        read.read_to_end(&mut got)
    );
    received.unwrap();
    let text = String::from_utf8(got).unwrap();
    assert_eq!(status(&text), 413);
    assert!(text.ends_with("\r\n\r\nbig"), "{text}");
}

#[tokio::test]
async fn early_hints_pass_and_a_flood_of_them_does_not() {
    let world = World::new(|mut service: Service| async move {
        while let Some(path) = service.request().await {
            let hints = if path == "/flood" { 100 } else { 2 };
            for _ in 0..hints {
                service
                    .send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
                    .await;
            }
            service
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await;
        }
    })
    .await;
    let mut guest = world.visit().await;
    guest.get("/").await;
    for expected in [103, 103, 200] {
        assert_eq!(status(&guest.head().await), expected);
    }
    guest.get("/flood").await;
    guest.until("502 Bad Gateway").await;
}

#[tokio::test]
async fn the_next_request_waits_for_the_answer() {
    let gate = Arc::new(Semaphore::new(0));
    let inner = Arc::clone(&gate);
    let world = World::new(move |mut service| {
        let gate = Arc::clone(&inner);
        async move {
            while let Some(path) = service.request().await {
                gate.acquire().await.unwrap().forget();
                let head =
                    format!("HTTP/1.1 200 OK\r\nX-Path: {path}\r\nContent-Length: 0\r\n\r\n");
                service.send(head).await;
            }
        }
    })
    .await;
    let mut guest = world.visit().await;
    guest
        .send(format!("GET /1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n").repeat(3))
        .await;
    for n in 1..=3 {
        gate.add_permits(1);
        guest.head().await;
        let sent = world.seen.text().matches("GET /1 ").count();
        assert!(sent <= n + 1, "{sent} after {n}");
    }
}

/// A service that says no and hangs up while the body still comes.
#[tokio::test]
async fn an_early_answer_is_not_lost_behind_a_broken_upload() {
    let world = World::new(|mut service: Service| async move {
        service.head().await;
        service
            .send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")
            .await;
    })
    .await;
    let visits = (0..60).map(|round| early(&world, 100_000 + round * 50_000));
    for (round, got) in futures_util::future::join_all(visits)
        .await
        .iter()
        .enumerate()
    {
        assert!(got.starts_with("HTTP/1.1 413 "), "{round}: {got:?}");
    }
}

async fn early(world: &World, length: usize) -> String {
    let guest = world.visit().await;
    let (mut read, mut write) = guest.socket.into_split();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut wire = head.into_bytes();
    wire.resize(wire.len() + length, b'x');
    let mut got = Vec::new();
    // What the door does not take is the service's doing.
    let (_, _) = tokio::join!(write.write_all(&wire), read.read_to_end(&mut got));
    String::from_utf8_lossy(&got).into_owned()
}

/// Both sides talk in turn, and the service begins.
#[tokio::test(start_paused = true)]
async fn a_chunked_body_may_begin_after_the_answer() {
    let world = World::new(|mut service: Service| async move {
        service.head().await;
        service
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nready?\r\n")
            .await;
        let body = service.body(Framing::Chunked).await;
        service.send(format!("{:x}\r\n", body.len())).await;
        service.send(&body).await;
        service.send("\r\n0\r\n\r\n").await;
    })
    .await;
    let mut guest = world.visit().await;
    guest
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ))
        .await;
    guest.until("ready?\r\n").await;
    guest.send("3\r\nyes\r\n0\r\n\r\n").await;
    assert!(guest.until("0\r\n\r\n").await.contains("yes"));
}

/// The length of the large answers of [`download`].
const LARGE: usize = 3_000_000;

/// Answers `/cut` with less than it says, all else whole.
async fn download(mut service: Service) {
    while let Some(path) = service.request().await {
        let (said, sent) = match path.as_str() {
            "/small" => (5, 5),
            "/cut" => (LARGE, LARGE - 1),
            _ => (LARGE, LARGE),
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {said}\r\n\r\n");
        service.send(head).await;
        service.send(pattern(sent)).await;
        if sent < said {
            return;
        }
    }
}

#[tokio::test]
async fn large_answers_leave_their_connections_in_order() {
    let world = World::new(download).await;
    let mut guest = world.visit().await;
    for path in ["/large", "/small", "/large", "/large", "/small"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        guest.socket.write_all(request.as_bytes()).await.unwrap();
        let length = if path == "/small" { 5 } else { LARGE };
        let mut got = Vec::new();
        let head = loop {
            if let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(guest.socket.read_buf(&mut got).await.unwrap() > 0);
        };
        let mut rest = vec![0; head + length - got.len()];
        guest.socket.read_exact(&mut rest).await.unwrap();
        got.extend(rest);
        assert!(got[head..] == pattern(length), "{path}");
    }
    assert_eq!(world.seen.connections(), 1);
}

#[tokio::test]
async fn a_large_answer_that_is_cut_is_no_whole_one() {
    let world = World::new(download).await;
    let mut guest = world.visit().await;
    let request = format!("GET /cut HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    guest.socket.write_all(request.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    let ended = guest.socket.read_to_end(&mut got).await;
    assert!(ended.is_err(), "a reset, not an end in order");
}
