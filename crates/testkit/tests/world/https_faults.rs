//! What goes wrong at the HTTPS door: strangers that speak something else, or
//! nothing, or without end; certificates that change while they are served.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use adit_testkit::nginx::Nginx;
use adit_testkit::raw::Socket;
use adit_testkit::wait::{until, until_true};

use adit_testkit::tls::{Pair, Tls, announced, connect, head, put};

use super::https::{fetch, world};

fn outcome(result: &str) -> String {
    format!("adit_tls_handshakes_total{{result=\"{result}\"}}")
}

#[test]
fn what_is_no_tls_is_answered_as_it_asks() {
    let (world, door) = world("", "");
    let (answer, _) = Socket::send_to(door, "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").rest();
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
    assert!(
        answer.ends_with("\r\n\r\n") && !answer.contains("adit"),
        "{answer}"
    );
    // Anything else gets what TLS says to it: an alert, and the end.
    for garbage in [
        &b"\x00\x01\x02\x03\x04\x05\x06"[..],
        b"SSH-2.0-x\r\n",
        b"\x16\x03\x01\x00\x01\x05",
    ] {
        let mut socket = Socket::send_to(door, garbage);
        socket.finish();
        let (answer, _) = socket.rest();
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
    }
    until_true("all are counted", || {
        let counted = ["not_tls", "gone"].map(|result| world.metric(&outcome(result)) as u32);
        counted == [3, 1]
    });
}

#[test]
fn who_is_slow_is_not_waited_for() {
    let pair = Pair::new(&["app.test"]);
    let tables = format!("{}[limits]\nhead_seconds = 1\n", pair.table());
    let (world, door) = world("", &tables);
    // Nothing; half a message; a message and then nothing.
    let silent = Socket::dial(door);
    let half = Socket::send_to(door, b"\x16\x03\x01\x02\x00\x01\x00");
    let mut whole = connect(door, &pair.cert, "app.test");
    whole.conn.write_tls(&mut whole.sock).unwrap();
    for mut socket in [silent, half] {
        let (answer, _) = socket.rest();
        assert_eq!(answer, b"");
    }
    let mut rest = Vec::new();
    let _ = whole.sock.read_to_end(&mut rest);
    until_true("all are counted", || {
        world.metric(&outcome("slow")) as u32 == 3
    });
    until_true("nobody is kept", || {
        world.metric("adit_connections_open{door=\"https\"}") as u32 == 0
    });
}

#[test]
fn a_message_may_come_byte_by_byte() {
    let pair = Pair::new(&["app.test"]);
    let (world, door) = world("", &pair.table());
    let nginx = Nginx::start("location / { return 200 slow; }");
    let _agent = world.agent("app", nginx.address);
    let mut tls = connect(door, &pair.cert, "app.test");
    let mut hello = Vec::new();
    tls.conn.write_tls(&mut hello).unwrap();
    for byte in hello {
        tls.sock.write_all(&[byte]).unwrap();
    }
    tls.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
        .unwrap();
    assert!(head(&mut tls).starts_with("HTTP/1.1 200 "));
}

#[test]
fn handshakes_that_are_none_ban_their_address() {
    let pair = Pair::new(&["app.test"]);
    let tables = format!("{}[limits]\nhandshakes_before_ban = 3\n", pair.table());
    let (world, door) = world("proxy_protocol = [\"127.0.0.1\"]\n", &tables);
    let nginx = Nginx::start("location / { return 200 ok; }");
    let _agent = world.agent("app", nginx.address);
    let ask = |address: &str| announced(door, &pair.cert, address).starts_with("HTTP/1.1 200 ");
    // Who does not trust the certificate may try as often as it likes.
    let other = Pair::new(&["app.test"]);
    for _ in 0..5 {
        assert_eq!(announced(door, &other.cert, "192.0.2.8"), "");
    }
    assert!(ask("192.0.2.8"));
    for _ in 0..3 {
        assert!(ask("192.0.2.7"));
        Socket::send_to(
            door,
            "PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n\x01\x02\x03\x04\x05\x06",
        )
        .rest();
    }
    assert!(!ask("192.0.2.7"), "it is banned");
    assert!(ask("192.0.2.8"), "others are not");
    assert_eq!(world.metric("adit_bans_total") as u32, 1);
}

#[test]
fn a_handshake_counts_as_a_request() {
    let pair = Pair::new(&["app.test"]);
    let tables = format!("{}[limits]\nrequests_per_second = 1\n", pair.table());
    let (world, door) = world("proxy_protocol = [\"127.0.0.1\"]\n", &tables);
    for _ in 0..20 {
        // Answered or not: the point is what is counted.
        let _ = announced(door, &pair.cert, "192.0.2.9");
    }
    assert!(world.metric(&outcome("limited")) > 0.0);
}

#[test]
fn certificates_change_while_they_are_served() {
    let pair = Pair::new(&["app.test"]);
    let (world, door) = world("", &pair.table());
    let nginx = Nginx::start("location / { return 200 \"here\"; }");
    let _agent = world.agent("app", nginx.address);
    let first = world.folder("first.pem");
    std::fs::copy(&pair.cert, &first).unwrap();
    // One connection that lasts, and others that come all the time.
    let mut lasting = connect(door, &first, "app.test");
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU32::new(0)),
    );
    let load = {
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let reply = adit_testkit::curl::request(door, &["--insecure", "https://app.test/"]);
                assert_eq!(reply.body, "here");
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let ask = |tls: &mut Tls| {
        tls.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
            .unwrap();
        assert!(head(tls).starts_with("HTTP/1.1 200 "));
        let mut body = [0; 4];
        tls.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"here");
    };
    let shown = |cert: &std::path::Path| fetch(door, cert, &["https://app.test/"]).status.success();
    ask(&mut lasting);
    until_true("the files were looked at", || {
        done.load(Ordering::Relaxed) > 3
    });
    pair.make(&["app.test"]);
    until_true("the new certificate is shown", || shown(&pair.cert));
    assert!(!shown(&first));
    assert_eq!(world.metric("adit_tls_reloads_total") as u32, 1);
    // A pair that does not fit together is not taken.
    let good = std::fs::read_to_string(&pair.key).unwrap();
    let second = world.folder("second.pem");
    std::fs::copy(&pair.cert, &second).unwrap();
    put(&pair.key, "-----BEGIN nothing");
    let failures = || world.metric("adit_tls_reload_failures_total");
    until("the broken pair is seen", || {
        (failures() > 0.0).then_some(())
    });
    assert!(shown(&second), "the one before is shown on");
    // Mended, it is taken again; a file that is away is no end either.
    std::fs::remove_file(&pair.key).unwrap();
    until_true("the missing file is seen", || failures() > 1.0);
    assert!(shown(&second));
    pair.make(&["app.test"]);
    until_true("the third certificate is shown", || shown(&pair.cert));
    assert_ne!(good, std::fs::read_to_string(&pair.key).unwrap());
    let before = done.load(Ordering::Relaxed);
    until_true("others still come", || {
        done.load(Ordering::Relaxed) > before + 2
    });
    stop.store(true, Ordering::Relaxed);
    load.join().unwrap();
    ask(&mut lasting);
}
