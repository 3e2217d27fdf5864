//! One certificate with its key, and what it says about itself.

use std::fmt;
use std::sync::Arc;

use adit_model::HostName;
use aws_lc_rs::digest;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Why a certificate cannot be used. None of the texts holds anything of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The certificate's file holds none.
    #[error("there is no certificate in it (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// The key's file holds none.
    #[error("there is no private key in it (-----BEGIN PRIVATE KEY-----)")]
    NoKey,
    /// Something else stands where a certificate should.
    #[error("the certificate is damaged")]
    Damaged,
    /// The key is of a kind that is not known, or damaged.
    #[error("the key is damaged or of a kind that TLS does not know")]
    BadKey,
    /// The key belongs to another certificate.
    #[error("the key does not belong to the certificate")]
    OtherKey,
    /// It names nobody (RFC 6125: the common name does not count).
    #[error("the certificate has no subjectAltName, and visitors' programs look at nothing else")]
    NoName,
    /// Its time is over.
    #[error("the certificate has expired")]
    Expired,
    /// Its time has not come.
    #[error("the certificate is not valid yet")]
    Early,
}

/// A name that a certificate is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertName {
    /// This one.
    Exact(HostName),
    /// Every name of one more label than this.
    Below(HostName),
}

impl CertName {
    /// Reads a DNS name of a certificate: `app.example.test`, `*.example.test`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("*.") {
            Some(parent) => HostName::parse(parent).ok().map(Self::Below),
            None => HostName::parse(text).ok().map(Self::Exact),
        }
    }

    /// Whether a host is meant.
    #[must_use]
    pub fn covers(&self, host: &HostName) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Below(parent) => {
                let rest = host.as_str().split_once('.');
                rest.is_some_and(|(label, rest)| !label.is_empty() && rest == parent.as_str())
            }
        }
    }
}

impl fmt::Display for CertName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// A certificate chain with its key.
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<CertName>,
    not_after: u64,
    fingerprint: [u8; 32],
}

impl Certificate {
    /// Takes a chain, its own certificate first, and a key, both as PEM.
    ///
    /// # Errors
    /// See [`CertificateError`]; `now` is in unix seconds.
    pub fn from_pem(chain: &[u8], key: &[u8], now: u64) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|_| CertificateError::Damaged)?;
        let own = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (names, times) = read(own)?;
        let fingerprint = digest::digest(&digest::SHA256, own);
        let fingerprint = fingerprint.as_ref().try_into();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => CertificateError::NoKey,
            _ => CertificateError::BadKey,
        })?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::OtherKey,
            _ => CertificateError::BadKey,
        })?;
        if now >= times.1 {
            return Err(CertificateError::Expired);
        }
        if now < times.0 {
            return Err(CertificateError::Early);
        }
        Ok(Self {
            key: Arc::new(key),
            names,
            not_after: times.1,
            fingerprint: fingerprint.map_err(|_| CertificateError::Damaged)?,
        })
    }

    /// For a handshake.
    #[must_use]
    pub fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// The names that it is good for; none, when it is for addresses only.
    #[must_use]
    pub fn names(&self) -> &[CertName] {
        &self.names
    }

    /// Its last second, in unix seconds.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// The SHA-256 of the certificate, as programs show it: `AB:CD:…`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let pairs: Vec<_> = self
            .fingerprint
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        pairs.join(":")
    }

    /// Whether it is good for a host.
    #[must_use]
    pub fn covers(&self, host: &HostName) -> bool {
        self.names.iter().any(|name| name.covers(host))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.fingerprint())
    }
}

/// The one provider of cryptography, the post-quantum exchange first.
pub(crate) fn provider() -> CryptoProvider {
    use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
    CryptoProvider {
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..default_provider()
    }
}

/// Names and times of a certificate.
fn read(der: &CertificateDer<'_>) -> Result<(Vec<CertName>, (u64, u64)), CertificateError> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|_| CertificateError::Damaged)?;
    let alternative = parsed.subject_alternative_name();
    let alternative = alternative.map_err(|_| CertificateError::Damaged)?;
    let general = alternative.map(|found| &found.value.general_names[..]);
    let general = general.unwrap_or_default();
    let is_name = |name: &&GeneralName<'_>| {
        matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_))
    };
    if general.iter().find(is_name).is_none() {
        return Err(CertificateError::NoName);
    }
    let names = general.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => CertName::parse(name),
        _ => None,
    });
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    let validity = parsed.validity();
    let from = seconds(validity.not_before.timestamp());
    // The last second belongs to it (RFC 5280 §4.1.2.5).
    let until = seconds(validity.not_after.timestamp()).saturating_add(1);
    Ok((names.collect(), (from, until)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let covers = |pattern: &str, host: &str| {
            let host = HostName::parse(host).unwrap();
            CertName::parse(pattern).unwrap().covers(&host)
        };
        assert!(covers("*.Example.test", "app.example.test"));
        assert!(covers("app.example.test", "APP.example.test."));
        assert!(!covers("*.example.test", "example.test"));
        assert!(!covers("*.example.test", "a.b.example.test"));
        assert!(!covers("example.test", "app.example.test"));
        for bad in ["", "*", "*.", "a.*.test", "**.test"] {
            assert_eq!(CertName::parse(bad), None, "{bad}");
        }
    }
}
