//! TLS towards `https://` targets, verified unless its owner says otherwise.

use std::sync::Arc;

use adit_link::tls::unverified;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, Error, RootCertStore};
use tokio_rustls::TlsConnector;

/// What is trusted: the public roots, and those of this machine. Reads files.
pub(crate) fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!(%error, "some of this machine's trusted certificates cannot be read");
    }
    roots.add_parsable_certificates(system.certs);
    roots
}

/// A connector that verifies against `roots`; `None` takes any certificate.
///
/// # Errors
/// The library's, when it cannot do any version of TLS.
pub(crate) fn connector(roots: Option<RootCertStore>) -> Result<TlsConnector, Error> {
    let Some(roots) = roots else {
        return unverified().map(TlsConnector::from);
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // The edge speaks HTTP/1.1 through the tunnel.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
