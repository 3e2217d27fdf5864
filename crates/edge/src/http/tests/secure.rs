//! The same door, reached by TLS.

use adit_model::HostName;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as Client;

use super::upgrades::{Links, ask_for_link};
use super::*;
use crate::sni::First;
use crate::tls::stream::TlsStream;
use crate::tls::{Certificate, Served, provider};
use crate::transport::Transport;
use crate::visitor::Visitor;

const CERT: &[u8] = include_bytes!("../../../testdata/tls/good.pem");
const KEY: &[u8] = include_bytes!("../../../testdata/tls/good.key");

/// A visitor with TLS, and the door's side of it as a task.
async fn visit(world: &World) -> Client<TcpStream> {
    let now = crate::tls::unix_now();
    let certificate = Arc::new(Certificate::from_pem(CERT, KEY, now).unwrap());
    let (mut roots, chain) = (RootCertStore::empty(), &certificate.key().cert);
    roots.add(chain[0].clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (door, stop) = (Arc::clone(&world.door), world.stop.clone());
    world.tasks.spawn_until_stopped(async move {
        let (socket, peer) = listener.accept().await.unwrap();
        let place = Place::take(Arc::clone(&door)).unwrap();
        let now = tokio::time::Instant::now();
        let permit = door.parts.limits.connect(peer.ip(), now.into_std());
        let mut visitor = Visitor::new(socket);
        let first = First::read(&mut visitor, now + Duration::from_secs(9)).await;
        let first = first.ok().unwrap();
        let Some(Transport::Plain(socket)) = visitor.into_transport() else {
            panic!("a socket");
        };
        let config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(
                certificate.key(),
            ))));
        let served = Served {
            asked: first.host.clone(),
            certificate,
        };
        let rest = first.rest().to_vec();
        let stream = TlsStream::accept(socket, first.message, rest, Arc::new(config), served);
        let visitor = Visitor::over(Transport::Tls(Box::new(stream.await.unwrap())));
        serve_counted(visitor, peer, (place, permit.unwrap()), stop).await;
    });
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    connector.connect(name, socket).await.unwrap()
}

async fn head(client: &mut Client<TcpStream>) -> String {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        all.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_link_is_handed_over_with_its_tls() {
    let world = World::new(plain).await;
    let links = Arc::<Links>::default();
    world.door.set_link_upgrade(Arc::clone(&links) as _);
    let mut client = visit(&world).await;
    let ask = ask_for_link("/0123456789abcdef", "");
    client
        .write_all(format!("{ask}frames").as_bytes())
        .await
        .unwrap();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 101 "));
    let (_, upgraded) = links.taken().await;
    assert_eq!(upgraded.early, b"frames");
    let Transport::Tls(tls) = &upgraded.transport else {
        panic!("TLS");
    };
    assert_eq!(tls.served().asked, HostName::parse(HOST).ok());
    // More than any buffer between holds, both ways at once.
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    let (mut from, mut to) = tokio::io::split(upgraded.transport);
    let back = sent.clone();
    let far = async {
        let writing = async {
            to.write_all(&back).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let mut came = Vec::new();
        let reading = from.read_to_end(&mut came);
        let ((), read) = tokio::join!(writing, reading);
        read.unwrap();
        came
    };
    let (mut near_from, mut near_to) = tokio::io::split(client);
    let near = async {
        let writing = async {
            near_to.write_all(&sent).await.unwrap();
            near_to.shutdown().await.unwrap();
        };
        let mut came = Vec::new();
        let reading = near_from.read_to_end(&mut came);
        let ((), read) = tokio::join!(writing, reading);
        read.unwrap();
        came
    };
    let (came, went) = tokio::join!(far, near);
    assert!(came == sent && went == sent);
}

/// What a visitor does not take waits where it is, and nothing is lost.
#[tokio::test]
async fn a_visitor_that_reads_late_gets_everything() {
    const LENGTH: usize = 40_000_000;
    let world = World::new(|mut service: Service| async move {
        service.request().await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        service.send(head).await;
        service.send(vec![b'x'; LENGTH]).await;
        service.seen.add(service.number, b"|all is sent");
        service.more().await;
    })
    .await;
    let mut client = visit(&world).await;
    let ask = format!("GET /late HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    client.write_all(ask.as_bytes()).await.unwrap();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "));
    // The door is not the place where it piles up: the service cannot send on.
    let before = world
        .metrics()
        .http
        .bytes
        .of(crate::metrics::Direction::Out);
    let mut last = 0;
    loop {
        pass(Duration::from_millis(50)).await;
        let now = before.get();
        if now == last && now > 0 {
            break;
        }
        last = now;
    }
    assert!(!world.seen.text().ends_with("|all is sent"), "{last}");
    let mut body = vec![0; LENGTH];
    client.read_exact(&mut body).await.unwrap();
    assert!(body.iter().all(|byte| *byte == b'x'));
    assert!(world.seen.text().contains("X-Forwarded-Proto: https\r\n"));
    // And the connection goes on.
    client
        .write_all(ask.replace("late", "again").as_bytes())
        .await
        .unwrap();
    while !world.seen.text().contains("/again") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_altered_record_ends_the_connection() {
    let world = World::new(plain).await;
    let mut client = visit(&world).await;
    let (socket, _) = client.get_mut();
    // Application data of 32 bytes that nobody has sealed.
    let forged = [&[0x17, 3, 3, 0, 32][..], &[7; 32]].concat();
    socket.write_all(&forged).await.unwrap();
    let mut rest = Vec::new();
    let error = client.read_to_end(&mut rest).await.unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    assert_eq!(world.seen.connections(), 0);
}
