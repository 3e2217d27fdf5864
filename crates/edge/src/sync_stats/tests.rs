use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

use super::*;
use crate::admission::{AdmissionSettings, SystemClock};
use crate::http::SyncStats as _;
use crate::limits::{LimitSettings, Limits};
use crate::metrics::StatusClass;
use crate::state::Store;

struct Said;

impl Status for Said {
    fn status(&self) -> serde_json::Value {
        serde_json::json!({ "links": [], "text": "ü".repeat(1000) })
    }
}

fn door(data: &TempDir) -> SyncStats {
    let (store, seen) = Store::open(data.path(), None).unwrap();
    let metrics = Arc::new(Metrics::new());
    let now = Instant::now();
    let limits = Limits::new(LimitSettings::default(), Arc::clone(&metrics), now);
    let settings = AdmissionSettings::default();
    let clock = Arc::new(SystemClock);
    metrics.http.requests.of(StatusClass::Success).add(42);
    let admission = Admission::new(
        settings,
        Arc::new(store),
        &seen,
        limits,
        Arc::clone(&metrics),
        clock,
    );
    SyncStats::new(Arc::new(admission.unwrap()), Arc::new(Said), metrics)
}

/// A request as its sender makes it.
#[derive(Clone)]
struct Sent {
    method: String,
    path: String,
    timestamp: String,
    nonce: String,
    signature: String,
}

impl Sent {
    fn new(secret: &Psk, stamp: u64, nonce: u8) -> Self {
        let mut sent = Self {
            method: "GET".into(),
            path: PATH.into(),
            timestamp: stamp.to_string(),
            nonce: HEXLOWER.encode(&[nonce; 16]),
            signature: String::new(),
        };
        sent.sign(secret);
        sent
    }

    /// By the RFC's own construction, apart from the code under test.
    fn sign(&mut self, secret: &Psk) {
        let mac = |key: &[u8], text: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
                .as_ref()
                .to_vec()
        };
        let prk = mac(&[0; 32], secret.bytes());
        let key = mac(&prk, b"adit/1 request signing\x01");
        let signed = format!(
            "{}\n{}\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n{}\n{}",
            self.method, self.path, self.timestamp, self.nonce
        );
        self.signature = HEXLOWER.encode(&mac(&key, signed.as_bytes()));
    }

    fn ask(&self, door: &SyncStats) -> Option<Vec<u8>> {
        door.answer(&StatsRequest {
            method: self.method.as_bytes(),
            path: self.path.as_bytes(),
            timestamp: self.timestamp.as_bytes(),
            nonce: self.nonce.as_bytes(),
            signature: self.signature.as_bytes(),
            client: Ipv4Addr::LOCALHOST.into(),
        })
    }
}

#[test]
fn a_signed_request_is_answered_once() {
    let data = tempfile::tempdir().unwrap();
    let stats = door(&data);
    let secret = stats.admission.store().shared_secret();
    let now = stats.admission.unix_now();
    let sent = Sent::new(&secret, now, 1);
    assert!(sent.ask(&stats).unwrap().starts_with(b"gAAAAA"));
    assert_eq!(sent.ask(&stats), None);
    let mut upper = Sent::new(&secret, now, 0xab);
    upper.signature = upper.signature.to_uppercase();
    assert!(upper.ask(&stats).is_some());
    // The same nonce in other letters is the same nonce.
    let mut same = upper;
    same.nonce = same.nonce.to_uppercase();
    same.sign(&secret);
    assert_eq!(same.ask(&stats), None);
    // Nor does a killed edge forget.
    drop(stats);
    let stats = door(&data);
    assert_eq!(sent.ask(&stats), None);
    assert!(Sent::new(&secret, now, 2).ask(&stats).is_some());
}

#[test]
fn every_mistake_is_answered_by_nothing() {
    let data = tempfile::tempdir().unwrap();
    let stats = door(&data);
    let secret = stats.admission.store().shared_secret();
    let now = stats.admission.unix_now();
    let good = Sent::new(&secret, now, 1);
    let changed = |change: &dyn Fn(&mut Sent), signed: bool| {
        let mut sent = good.clone();
        change(&mut sent);
        if signed {
            sent.sign(&secret);
        }
        sent
    };
    let wrong: Vec<Sent> = vec![
        changed(&|s| s.method = "HEAD".into(), true),
        changed(&|s| s.method = "get".into(), true),
        changed(&|s| s.path = "/_sys/sync_stats/".into(), true),
        changed(&|s| s.path = "/_SYS/sync_stats".into(), true),
        changed(&|s| s.timestamp = (now - 40).to_string(), true),
        changed(&|s| s.timestamp = (now + 40).to_string(), true),
        changed(&|s| s.timestamp = format!("+{now}"), true),
        changed(&|s| s.timestamp = format!("{now}.0"), true),
        changed(&|s| s.timestamp = format!(" {now}"), true),
        changed(&|s| s.timestamp = String::new(), true),
        changed(&|s| s.timestamp = "9".repeat(21), true),
        changed(&|s| s.nonce = "0".repeat(31), true),
        changed(&|s| s.nonce = "0".repeat(33), true),
        changed(&|s| s.nonce = "g".repeat(32), true),
        changed(&|s| s.timestamp = (now + 1).to_string(), false),
        changed(&|s| s.nonce = "0".repeat(32), false),
        changed(&|s| s.signature = "0".repeat(64), false),
        changed(&|s| s.signature.truncate(62), false),
        changed(&|s| s.signature.push_str("00"), false),
        changed(&|s| s.signature = String::new(), false),
        Sent::new(&Psk::from_random([7; 32]), now, 1),
    ];
    for (case, sent) in wrong.iter().enumerate() {
        assert_eq!(sent.ask(&stats), None, "case {case}");
    }
    for at in 0..64 {
        let digit = &good.signature[at..=at];
        let other = if digit == "0" { "1" } else { "0" };
        let sent = changed(&|s| s.signature.replace_range(at..=at, other), false);
        assert_eq!(sent.ask(&stats), None, "digit {at}");
    }
    // None of them used the nonce up.
    assert!(good.ask(&stats).is_some());
}

#[tokio::test]
async fn a_rotated_secret_counts_at_once() {
    let data = tempfile::tempdir().unwrap();
    let stats = door(&data);
    let old = stats.admission.store().shared_secret();
    let new = stats.admission.rotate_secret().await.unwrap();
    let now = stats.admission.unix_now();
    assert_eq!(Sent::new(&old, now, 1).ask(&stats), None);
    assert!(Sent::new(&new, now, 1).ask(&stats).is_some());
}

/// Answers one request as a door would.
async fn respond(listener: TcpListener, stats: SyncStats) {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(socket.read_buf(&mut head).await.unwrap(), 0);
    }
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(&head).unwrap();
    let value = |name: &str| {
        let found = request
            .headers
            .iter()
            .find(|f| f.name.eq_ignore_ascii_case(name));
        found.map(|f| f.value).unwrap_or_default()
    };
    let token = stats.answer(&StatsRequest {
        method: request.method.unwrap().as_bytes(),
        path: request.path.unwrap().as_bytes(),
        timestamp: value("x-adit-timestamp"),
        nonce: value("x-adit-nonce"),
        signature: value("x-adit-signature"),
        client: Ipv4Addr::LOCALHOST.into(),
    });
    let (status, body) = token.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&body).await.unwrap();
}

/// The Python of the environment that `cargo xtask setup` makes below the build
/// folder.
fn python() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let mut places = test.ancestors().map(|f| f.join("peers/venv/bin/python"));
    let found = places.find(|file| file.is_file());
    found.expect("there is no Python environment: run `cargo xtask setup`")
}

async fn run_example(address: SocketAddr, secret: PathBuf) -> std::process::Output {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sync_stats.py");
    Command::new(python())
        .arg(example)
        .arg(format!("http://{address}"))
        .arg(secret)
        .env("no_proxy", "*")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

#[tokio::test]
async fn the_example_script_reads_the_statistics() {
    let data = tempfile::tempdir().unwrap();
    let stats = door(&data);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let run = run_example(address, data.path().join("secret"));
    let (output, ()) = tokio::join!(run, respond(listener, stats));
    assert!(output.status.success(), "{output:?}");
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut expected = Said.status();
    expected["totals"] = printed["totals"].clone();
    assert_eq!(printed, expected);
    assert_eq!(printed["totals"]["requests"]["2xx"], 42);
}

#[tokio::test]
async fn the_example_script_fails_with_another_secret() {
    let data = tempfile::tempdir().unwrap();
    let stats = door(&data);
    let other = data.path().join("other");
    std::fs::write(&other, "another secret of many characters 0123456789").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let run = run_example(address, other);
    let (output, ()) = tokio::join!(run, respond(listener, stats));
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("404"));
}

#[test]
fn the_example_is_short() {
    let example = include_str!("../../../../examples/sync_stats.py");
    assert!(example.lines().count() <= 20);
}
