//! The table of hostile requests, through the running door.

use super::*;

#[tokio::test]
async fn every_case_ends_as_the_table_says() {
    let world = World::new(plain).await;
    for case in adit_http1::corpus::cases().unwrap() {
        world.seen.forget();
        let mut guest = world.visit().await;
        guest.send(&case.send).await;
        guest.finish().await;
        let mut text = guest.rest().await;
        let mut found = Vec::new();
        while !text.is_empty() {
            found.push(status(&text));
            let (head, rest) = text.split_once("\r\n\r\n").unwrap();
            let lower = head.to_ascii_lowercase();
            for name in ["adit", "server:", "tunnel"] {
                assert!(!lower.contains(name), "{}: {head}", case.name);
            }
            let (_, length) = lower.split_once("content-length: ").unwrap();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            text = rest[length..].to_owned();
        }
        assert_eq!(found, case.status, "{}", case.name);
        let read = world.seen.all();
        assert_eq!(case.complaint(&read), None, "{}", case.name);
        let requests = read.windows(11).filter(|w| w == b" HTTP/1.1\r\n").count();
        let hidden = case.name == "body-is-a-request";
        assert_eq!(
            requests,
            case.forwarded() + usize::from(hidden),
            "{}",
            case.name
        );
    }
}

#[tokio::test]
async fn byte_by_byte_it_is_the_same() {
    let world = World::new(plain).await;
    let names = [
        "cl-te",
        "chunk-trailers",
        "pipelined",
        "chunk-ext-lf",
        "dots-escaped",
    ];
    for case in adit_http1::corpus::cases().unwrap() {
        if !names.contains(&case.name.as_str()) {
            continue;
        }
        let mut guest = world.visit().await;
        guest.socket.set_nodelay(true).unwrap();
        for byte in &case.send {
            // A refusal may close the connection before the last byte.
            if guest.socket.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        for expected in &case.status {
            assert_eq!(status(&guest.answer().await), *expected, "{}", case.name);
        }
    }
}
