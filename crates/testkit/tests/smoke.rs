//! One request through the whole path.
use std::time::Duration;
use adit_edge::config::EdgeConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn smoke() {
    tracing_subscriber::fmt().with_env_filter("debug").with_writer(std::io::stderr).init();
    let data = tempfile::tempdir().unwrap();
    let text = format!("[server]\ndata = \"{}\"\nworkers = 2\n[doors]\nhttp = \"127.0.0.1:0\"\nlink = \"127.0.0.1:0\"\napi = \"127.0.0.1:0\"\n[admission]\npin = \"off\"\n", data.path().join("edge").display());
    let config = EdgeConfig::parse(adit_config::Input { text: &text, file: None, variable: &|_| None, read: &|_| Err("no".into()), options: &[] });
    let config = match config { Ok(c) => c, Err(m) => panic!("{m:?}") };
    let edge = adit_edge::Edge::start(config).await.unwrap();
    let facts = edge.facts().clone();
    eprintln!("{facts:?}");
    let origin = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = origin.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut s, _) = origin.accept().await.unwrap();
            tokio::spawn(async move {
                let mut b = [0; 4096];
                loop {
                    let n = s.read(&mut b).await.unwrap();
                    if n == 0 { return }
                    eprintln!("ORIGIN SAW {}", String::from_utf8_lossy(&b[..n]));
                    s.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
                }
            });
        }
    });
    let settings = adit_agent::AgentSettings {
        join: Some(facts.join.clone()), data: data.path().join("agent"),
        tunnels: vec![adit_agent::TunnelSettings { name: Some("app".parse_name()), target: at.to_string().parse().unwrap(), host_header: None, insecure_target: false, auth: None, exclusive: false }],
        pin: adit_agent::PinFrom::Nowhere, workers: 1, drain: Duration::from_secs(1),
    };
    let (tx, mut rx) = tokio::sync::mpsc::channel(64);
    let stop = tokio_util::sync::CancellationToken::new();
    let agent = tokio::spawn(adit_agent::run(settings, tx, stop.clone()));
    loop {
        let event = rx.recv().await.unwrap();
        eprintln!("{event:?}");
        if let adit_agent::AgentEvent::Live { .. } = event { break }
    }
    let mut s = tokio::net::TcpStream::connect(facts.http).await.unwrap();
    for _ in 0..3 {
        s.write_all(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await.unwrap();
        let mut b = [0; 4096];
        let n = s.read(&mut b).await.unwrap();
        eprintln!("VISITOR SAW {}", String::from_utf8_lossy(&b[..n]));
        assert!(b[..n].ends_with(b"hello"));
    }
    stop.cancel();
    agent.await.unwrap().unwrap();
    assert!(edge.stop().await);
}
trait P { fn parse_name(&self) -> adit_model::TunnelName; }
impl P for str { fn parse_name(&self) -> adit_model::TunnelName { adit_model::TunnelName::parse(self).unwrap() } }
