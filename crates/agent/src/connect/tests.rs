use std::net::Ipv4Addr;
use std::sync::Arc;

use adit_link::tasks::Tasks;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::RootCertStore;
use rustls::pki_types::PrivatePkcs8KeyDer;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::pump::pump;
use crate::target::Target;
use crate::tls;

/// What an edge waits that could ask another agent.
const PATIENCE: Duration = Duration::from_millis(adit_wire::Start::PATIENCE_MS as u64);

fn connector(target: &str, tls: Option<&TlsConnector>) -> Connector {
    let target: Target = target.parse().unwrap();
    let allowed = AllowedTargets::default();
    Connector::new(target.place().clone(), target.label(), allowed, tls)
}

fn plain(target: &str) -> Connector {
    connector(target, None)
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address where nothing listens: it was bound and closed again.
async fn nobody() -> SocketAddr {
    listener().await.1
}

async fn failure(connector: &Connector) -> NotReached {
    match connector.connect(PATIENCE).await {
        Ok(_) => panic!("connected"),
        Err(failed) => failed,
    }
}

#[tokio::test]
async fn a_target_that_is_down_is_refused_by_name() {
    let address = nobody().await;
    let failed = failure(&plain(&address.to_string())).await;
    assert_eq!(failed.code, Code::TARGET_REFUSED);
    assert_eq!(failed.reason(), ResetReason::TargetRefused);
    assert_eq!(failed.why.matches(&address.to_string()).count(), 1);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told_apart() {
    // RFC 6761 §6.4: this name never resolves.
    let failed = failure(&plain("http://no-such-host.invalid:80")).await;
    assert_eq!(failed.code, Code::TARGET_UNKNOWN);
    assert_eq!(failed.reason(), ResetReason::TargetUnreachable);
}

#[tokio::test]
async fn every_address_has_its_turn_and_the_good_one_is_remembered() {
    let (listener, good) = listener().await;
    let (bad, worse) = (nobody().await, nobody().await);
    let connector = plain("http://service.test:80");
    *connector.resolved() = Some(Resolved {
        until: Instant::now() + Duration::from_secs(60),
        addresses: vec![bad, worse, good],
    });
    connector.connect(PATIENCE).await.unwrap();
    listener.accept().await.unwrap();
    let first = connector.resolved().as_ref().unwrap().addresses[0];
    assert_eq!(first, good);
    connector.connect(PATIENCE).await.unwrap();

    drop(listener);
    let failed = failure(&connector).await;
    assert_eq!(failed.code, Code::TARGET_REFUSED);
    for address in [good, bad, worse] {
        assert!(failed.why.contains(&address.to_string()), "{failed}");
    }
    assert!(connector.resolved().is_none(), "resolved anew next time");
}

#[tokio::test]
async fn an_address_that_is_not_allowed_is_never_tried() {
    let (listener, good) = listener().await;
    let elsewhere = TcpListener::bind(("127.0.0.2", good.port())).await.unwrap();
    let bad = elsewhere.local_addr().unwrap();
    let resolved = |addresses| {
        Some(Resolved {
            until: Instant::now() + Duration::from_secs(60),
            addresses,
        })
    };
    let mut connector = plain("http://service.test:80");
    connector.allowed = AllowedTargets::only(vec!["127.0.0.1".parse().unwrap()]);
    *connector.resolved() = resolved(vec![bad, good]);
    connector.connect(PATIENCE).await.unwrap();
    listener.accept().await.unwrap();

    // The name leads elsewhere from now on.
    *connector.resolved() = resolved(vec![bad]);
    let failed = failure(&connector).await;
    assert_eq!(failed.code, Code::TARGET_FORBIDDEN);
    assert_eq!(failed.reason(), ResetReason::TargetRefused);
    assert!(failed.why.contains(&bad.to_string()), "{failed}");
    let knocked = elsewhere.into_std().unwrap().accept();
    assert_eq!(knocked.unwrap_err().kind(), io::ErrorKind::WouldBlock);

    // A list that holds the name holds all it leads to.
    connector.allowed = AllowedTargets::only(vec!["service.test".parse().unwrap()]);
    *connector.resolved() = resolved(vec![good]);
    connector.connect(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_bare_port_reaches_either_loopback() {
    let v6 = TcpListener::bind("[::1]:0").await.unwrap();
    let port = v6.local_addr().unwrap().port();
    plain(&port.to_string()).connect(PATIENCE).await.unwrap();
    let (v4, address) = listener().await;
    plain(&address.port().to_string())
        .connect(PATIENCE)
        .await
        .unwrap();
    v4.accept().await.unwrap();
    v6.accept().await.unwrap();
}

#[tokio::test]
async fn a_target_that_goes_silent_is_asked_whether_it_is_there() {
    let (listener, address) = listener().await;
    let connector = plain(&address.to_string());
    let by = Instant::now() + PATIENCE;
    let Place::Tcp { host, port, .. } = &connector.place else {
        panic!("a TCP address")
    };
    let socket = connector.connect_tcp(host, *port, by).await.unwrap();
    let socket = SockRef::from(&socket);
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), IDLE);
    drop(listener);
}

#[tokio::test]
async fn a_target_that_does_not_answer_is_given_up_before_the_edge_gives_up() {
    // A full backlog leaves connections unanswered.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&SockAddr::from(any)).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut filling = Vec::new();
    while let Ok(Ok(one)) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        filling.push(one);
        assert!(filling.len() < 100, "the backlog is never full");
    }
    let began = Instant::now();
    let failed = failure(&plain(&address.to_string())).await;
    assert_eq!(failed.code, Code::TARGET_SLOW);
    assert!(began.elapsed() < PATIENCE);
}

#[cfg(unix)]
#[tokio::test]
async fn unix_sockets_are_targets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let mut connector = plain(&format!("unix:{}", path.display()));
    connector.allowed = AllowedTargets::only(vec!["unix:/run/other.sock".parse().unwrap()]);
    assert_eq!(failure(&connector).await.code, Code::TARGET_FORBIDDEN);
    connector.allowed = AllowedTargets::default();
    assert_eq!(failure(&connector).await.code, Code::TARGET_REFUSED);
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let mut world = Piped::through(&connector).await;
    let (mut service, _) = listener.accept().await.unwrap();
    world.visitor.write_all(b"ping").await.unwrap();
    world.visitor.shutdown().await.unwrap();
    let mut asked = String::new();
    service.read_to_string(&mut asked).await.unwrap();
    assert_eq!(asked, "ping");
    service.write_all(b"pong").await.unwrap();
    drop(service);
    let mut answer = String::new();
    world.visitor.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "pong");
}

/// A visitor's socket that is pumped to a connected target.
struct Piped {
    visitor: TcpStream,
    _tasks: Tasks,
}

impl Piped {
    async fn through(connector: &Connector) -> Self {
        let local = connector
            .connect(PATIENCE)
            .await
            .unwrap_or_else(|e| panic!("{e}"));
        let (listener, address) = listener().await;
        let (visitor, near) = tokio::join!(TcpStream::connect(address), listener.accept());
        let stream = adit_link::Stream::plain(near.unwrap().0);
        let tasks = Tasks::new();
        tasks.spawn(async move { drop(pump(stream, local, |_, _| {}).await) });
        Self {
            visitor: visitor.unwrap(),
            _tasks: tasks,
        }
    }
}

/// A TLS service for `name` that says everything back, upside down at the end.
struct Secure {
    address: SocketAddr,
    roots: RootCertStore,
    tasks: Tasks,
}

impl Secure {
    async fn start(name: &str, polite: bool) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([name.to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (listener, address) = listener().await;
        let tasks = Tasks::new();
        let group = tasks.clone();
        tasks.spawn_until_stopped(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                group.spawn_until_stopped(async move {
                    let Ok(mut socket) = acceptor.accept(socket).await else {
                        return;
                    };
                    let mut bytes = Vec::new();
                    if socket.read_to_end(&mut bytes).await.is_err() {
                        return;
                    }
                    bytes.reverse();
                    socket.write_all(&bytes).await.unwrap();
                    socket.flush().await.unwrap();
                    if polite {
                        socket.shutdown().await.unwrap();
                    } else {
                        socket.into_inner().0.shutdown().await.unwrap();
                    }
                });
            }
        });
        Self {
            address,
            roots,
            tasks,
        }
    }

    fn connector(&self, host: &str, insecure: bool) -> Connector {
        let roots = (!insecure).then(|| self.roots.clone());
        let tls = tls::connector(roots).unwrap();
        let target = format!("https://{host}:{}", self.address.port());
        let connector = connector(&target, Some(&tls));
        *connector.resolved() = Some(Resolved {
            until: Instant::now() + Duration::from_secs(60),
            addresses: vec![self.address],
        });
        connector
    }
}

#[tokio::test]
async fn tls_carries_both_directions_and_their_ends() {
    let service = Secure::start("service.test", true).await;
    let world = Piped::through(&service.connector("service.test", false)).await;
    let question: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let (mut from, mut to) = world.visitor.into_split();
    let ask = async {
        to.write_all(&question).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut answer = Vec::new();
    let (_, read) = tokio::join!(ask, from.read_to_end(&mut answer));
    read.unwrap();
    answer.reverse();
    assert!(answer == question);
    assert!(service.tasks.close(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_tls_answer_that_may_be_cut_off_is_not_taken_for_whole() {
    let service = Secure::start("service.test", false).await;
    let mut world = Piped::through(&service.connector("service.test", false)).await;
    world.visitor.write_all(b"question").await.unwrap();
    world.visitor.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let error = world.visitor.read_to_end(&mut answer).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn only_a_certificate_that_verifies_is_taken() {
    let service = Secure::start("service.test", true).await;
    service
        .connector("service.test", false)
        .connect(PATIENCE)
        .await
        .unwrap();

    // Another name than the certificate's.
    let failed = failure(&service.connector("other.test", false)).await;
    assert_eq!(failed.code, Code::TARGET_TLS);
    assert_eq!(failed.reason(), ResetReason::TargetTls);
    assert!(failed.why.contains("--insecure-target"), "{failed}");

    // A certificate that nobody vouches for.
    let stranger = Secure::start("service.test", true).await;
    let mut connector = stranger.connector("service.test", false);
    connector.tls = service.connector("service.test", false).tls;
    assert_eq!(failure(&connector).await.code, Code::TARGET_TLS);

    // Both are taken where the owner says so.
    stranger
        .connector("other.test", true)
        .connect(PATIENCE)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_service_without_tls_is_told_apart() {
    let (listener, address) = listener().await;
    let tls = tls::connector(None).unwrap();
    let target = format!("https://127.0.0.1:{}", address.port());
    let connector = connector(&target, Some(&tls));
    let answer = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut hello = [0; 16];
        socket.read_exact(&mut hello).await.unwrap();
        socket
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        socket
    };
    let (failed, _open) = tokio::join!(failure(&connector), answer);
    assert_eq!(failed.code, Code::TARGET_TLS);

    // One that says nothing at all.
    let began = Instant::now();
    let failed = failure(&connector).await;
    assert_eq!(failed.code, Code::TARGET_TLS);
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn the_roots_of_the_public_web_are_trusted() {
    assert!(tls::roots().len() >= webpki_roots::TLS_SERVER_ROOTS.len());
}
