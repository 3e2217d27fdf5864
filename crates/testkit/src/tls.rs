//! TLS as a visitor speaks it, with certificates made for a test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use time::OffsetDateTime;

use crate::wait::DEADLINE;

/// A certificate and its key in files.
pub struct Pair {
    /// The certificate's file.
    pub cert: PathBuf,
    /// Its key's.
    pub key: PathBuf,
    _folder: tempfile::TempDir,
}

impl Pair {
    /// A pair that is good for these names.
    ///
    /// # Panics
    /// When it cannot be made or written.
    #[must_use]
    pub fn new(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let pair = Self {
            cert: at("cert.pem"),
            key: at("key.pem"),
            _folder: folder,
        };
        pair.make(names);
        pair
    }

    /// As [`Pair::new`], with an end in so many days.
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn ending(names: &[&str], days: i64) -> Self {
        let pair = Self::new(names);
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(names).expect("names of a certificate");
        params.not_after = OffsetDateTime::now_utc() + time::Duration::days(days);
        let made = params.self_signed(&key).expect("a certificate");
        put(&pair.cert, &made.pem());
        put(&pair.key, &key.serialize_pem());
        pair
    }

    /// Makes another pair and puts it in place of the files.
    ///
    /// # Panics
    /// When it cannot be made or written.
    pub fn make(&self, names: &[&str]) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made =
            rcgen::generate_simple_self_signed(names).expect("a certificate for these names");
        put(&self.cert, &made.cert.pem());
        put(&self.key, &made.signing_key.serialize_pem());
    }

    /// Its table of configuration.
    #[must_use]
    pub fn table(&self) -> String {
        let (cert, key) = (self.cert.display(), self.key.display());
        format!("[[certificate]]\ncert = \"{cert}\"\nkey = \"{key}\"\n")
    }
}

/// Replaces a file whole.
///
/// # Panics
/// When it cannot be written.
pub fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("a file beside");
    std::fs::rename(&beside, path).expect("a file in place");
}

/// TLS whose records are written when a test says so.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A client that trusts one certificate and asks for a name.
///
/// # Panics
/// When nobody listens, or the name is none.
#[must_use]
pub fn connect(door: SocketAddr, trusted: &Path, name: &str) -> Tls {
    let socket = TcpStream::connect(door).expect("somebody listens");
    over(socket, trusted, name)
}

/// The same over a connection that is there.
///
/// # Panics
/// When the name is none.
#[must_use]
pub fn over(socket: TcpStream, trusted: &Path, name: &str) -> Tls {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(trusted).expect("a certificate in the file"))
        .expect("a certificate that can be trusted");
    socket.set_nodelay(true).expect("a socket without delay");
    socket
        .set_read_timeout(Some(DEADLINE))
        .expect("a read deadline");
    StreamOwned::new(client(roots, name), socket)
}

/// The first message of a client that asks for a name.
///
/// # Panics
/// When the name is none.
#[must_use]
pub fn hello(name: &str) -> Vec<u8> {
    let mut message = Vec::new();
    let mut client = client(RootCertStore::empty(), name);
    client.write_tls(&mut message).expect("room for a message");
    message
}

fn client(roots: RootCertStore, name: &str) -> ClientConnection {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).expect("a name for TLS");
    ClientConnection::new(Arc::new(config), name).expect("a TLS client")
}

/// A request that a balancer announces as this address's; what came back, or
/// nothing.
///
/// # Panics
/// When nobody listens, or what came is no text.
#[must_use]
pub fn announced(door: SocketAddr, trusted: &Path, address: &str) -> String {
    let mut tls = connect(door, trusted, "app.test");
    let header = format!("PROXY TCP4 {address} 127.0.0.1 1000 443\r\n");
    let _ = tls.sock.write_all(header.as_bytes());
    let _ = tls.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    // Nothing is an answer, too.
    let _ = tls.read_to_end(&mut answer);
    String::from_utf8(answer).expect("text")
}

/// A head up to its empty line.
///
/// # Panics
/// When it ends before.
pub fn head(stream: &mut impl Read) -> String {
    let (mut all, mut byte) = (Vec::new(), [0]);
    while !all.ends_with(b"\r\n\r\n") {
        assert_eq!(
            stream.read(&mut byte).expect("more of a head"),
            1,
            "ended in a head"
        );
        all.push(byte[0]);
    }
    String::from_utf8(all).expect("text")
}
