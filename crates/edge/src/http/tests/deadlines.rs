//! Slow visitors and slow backends, on a paused clock.

use super::*;

async fn world(serve: fn(Service) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) -> World {
    World::new(serve).await
}

fn seconds(start: tokio::time::Instant) -> u64 {
    start.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_head_has_ten_seconds_however_it_drips() {
    let world = World::new(plain).await;
    let start = tokio::time::Instant::now();
    let mut guest = world.visit().await;
    let text = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: ");
    let mut bytes = text.bytes().chain(std::iter::repeat(b'a'));
    let answer = loop {
        let byte = bytes.next().unwrap();
        if guest.socket.write_all(&[byte]).await.is_err() {
            break String::new();
        }
        let more = tokio::time::timeout(Duration::from_millis(700), guest.more()).await;
        if let Ok(more) = more {
            assert!(more.unwrap());
            break guest.rest().await;
        }
    };
    assert_eq!(status(&answer), 408);
    assert!((10..=12).contains(&seconds(start)), "{}", seconds(start));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_without_a_word() {
    let world = World::new(plain).await;
    let start = tokio::time::Instant::now();
    let mut silent = world.visit().await;
    assert_eq!(silent.rest().await, "");
    assert_eq!(seconds(start), 10);
    let mut idle = world.visit().await;
    idle.get("/").await;
    idle.answer().await;
    let start = tokio::time::Instant::now();
    assert_eq!(idle.rest().await, "");
    assert_eq!(seconds(start), 60);
}

#[tokio::test(start_paused = true)]
async fn a_second_head_has_its_ten_seconds_from_its_first_byte() {
    let world = World::new(plain).await;
    let mut guest = world.visit().await;
    guest.get("/").await;
    guest.answer().await;
    pass(Duration::from_secs(30)).await;
    let start = tokio::time::Instant::now();
    guest.send("GET / HT").await;
    assert_eq!(status(&guest.rest().await), 408);
    assert!((10..12).contains(&seconds(start)), "{}", seconds(start));
}

#[tokio::test(start_paused = true)]
async fn a_body_must_keep_its_rate() {
    let world = World::new(plain).await;
    for (bytes, passes) in [(600usize, true), (400, false)] {
        let mut guest = world.visit().await;
        guest
            .send(format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n",
                bytes * 60
            ))
            .await;
        let piece = vec![b'x'; bytes];
        for _ in 0..60 {
            pass(Duration::from_secs(1)).await;
            if guest.socket.write_all(&piece).await.is_err() {
                break;
            }
        }
        let answer = guest.answer().await;
        assert_eq!(status(&answer), if passes { 200 } else { 408 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_backend_is_not_the_visitors_fault() {
    let world = world(|mut service| {
        Box::pin(async move {
            service.head().await;
            // Takes the body after a while that no visitor would be allowed.
            pass(Duration::from_secs(100)).await;
            service.body(Framing::Length(8_000_000)).await;
            service
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await;
        })
    })
    .await;
    let mut guest = world.visit().await;
    guest
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 8000000\r\n\r\n"
        ))
        .await;
    guest.send(vec![b'x'; 8_000_000]).await;
    assert_eq!(status(&guest.answer().await), 200);
}

#[tokio::test(start_paused = true)]
async fn an_answer_has_its_time_where_one_is_set() {
    let limit = |parts: &mut DoorParts| parts.settings.answer_time = Some(Duration::from_secs(7));
    let serve = |mut service: Service| async move {
        service.request().await;
        service.more().await;
    };
    let limits = LimitSettings::default();
    let world = World::with(serve, limit, limits, RouteOptions::default()).await;
    let start = tokio::time::Instant::now();
    let answer = world.get("/").await;
    assert_eq!((status(&answer), seconds(start)), (504, 7));
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_takes_nothing_holds_little_and_goes() {
    let world = world(|mut service| {
        Box::pin(async move {
            service.request().await;
            service
                .send("HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n")
                .await;
            let piece = vec![0; 65_536];
            while service.socket.write_all(&piece).await.is_ok() {
                service.seen.add(service.number, b"+");
            }
            service.seen.add(service.number, b"|end");
        })
    })
    .await;
    let mut guest = world.visit().await;
    guest.get("/").await;
    guest.head().await;
    while !world.seen.text().ends_with("|end") {
        pass(Duration::from_secs(1)).await;
    }
    // What fits into four socket buffers and one of the door.
    let pieces = world.seen.text().matches('+').count();
    assert!(pieces < 400, "{pieces} pieces");
}

#[tokio::test(start_paused = true)]
async fn an_answer_must_be_taken_at_a_rate_too() {
    let world = world(|mut service| {
        Box::pin(async move {
            service.request().await;
            service
                .send("HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n")
                .await;
            let piece = vec![0; 65_536];
            while service.socket.write_all(&piece).await.is_ok() {}
            service.seen.add(service.number, b"|end");
        })
    })
    .await;
    let mut guest = world.visit().await;
    guest.get("/").await;
    let start = tokio::time::Instant::now();
    let mut byte = [0];
    while !world.seen.text().ends_with("|end") {
        pass(Duration::from_secs(1)).await;
        // One byte a second never makes room enough to count.
        let _ = guest.socket.read(&mut byte).await;
    }
    assert!(seconds(start) < 120, "{}", seconds(start));
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_ended_its_direction_is_waited_for_but_not_for_ever() {
    let world = world(|mut service| {
        Box::pin(async move {
            let path = service.request().await;
            let wait = if path.as_deref() == Some("/late") {
                50
            } else {
                500
            };
            let _ = tokio::time::timeout(Duration::from_secs(wait), service.more()).await;
            service
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await;
        })
    })
    .await;
    let mut guest = world.visit().await;
    guest.get("/late").await;
    guest.finish().await;
    assert_eq!(status(&guest.rest().await), 200);
    let start = tokio::time::Instant::now();
    let mut guest = world.visit().await;
    guest.get("/never").await;
    guest.finish().await;
    assert!(guest.more().await.is_err());
    assert_eq!(seconds(start), 60);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_100_does_not_wait_for_ever() {
    let world = world(|mut service| {
        Box::pin(async move {
            service.head().await;
            service.more().await;
        })
    })
    .await;
    let start = tokio::time::Instant::now();
    let mut guest = world.visit().await;
    guest
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
        ))
        .await;
    assert_eq!(status(&guest.answer().await), 408);
    assert_eq!(seconds(start), 60);
}

/// One that left more than was asked for behind is noticed all the same.
#[tokio::test]
async fn a_visitor_that_left_is_noticed_behind_bytes_too_many() {
    let world = World::new(|mut service: Service| async move {
        service.head().await;
        service.seen.add(service.number, b"|asked");
        while service.more().await {}
        service.seen.add(service.number, b"|left");
    })
    .await;
    for extra in [1, 20_000] {
        let mut guest = world.visit().await;
        guest.get("/silent").await;
        guest.send(vec![b'x'; extra]).await;
        let (asked, left) = ("|asked", "|left");
        let count = |word: &str| world.seen.text().matches(word).count();
        let number = count(left) + 1;
        while count(asked) < number {
            tokio::task::yield_now().await;
        }
        let gone = socket2::SockRef::from(&guest.socket).set_linger(Some(Duration::ZERO));
        gone.unwrap();
        drop(guest);
        let noticed = async {
            while count(left) < number {
                pass(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), noticed)
            .await
            .unwrap();
    }
}

/// More bytes than the door reads ahead: nobody hears the end behind them.
#[tokio::test(start_paused = true)]
async fn a_visitor_behind_a_full_buffer_is_given_up() {
    let world = world(|mut service| {
        Box::pin(async move {
            service.head().await;
            while service.more().await {}
        })
    })
    .await;
    let start = tokio::time::Instant::now();
    let mut guest = world.visit().await;
    guest.get("/silent").await;
    guest.send(vec![b'x'; 300_000]).await;
    assert!(guest.more().await.is_err());
    assert_eq!(seconds(start), 60);
}
