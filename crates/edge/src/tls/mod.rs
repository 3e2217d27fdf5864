//! TLS that ends at this edge: which certificate serves which name, and the
//! connections themselves.
//!
//! [`Certificates`] is an immutable table that is swapped whole. It is put
//! together from sources, each of which may replace its own certificates at
//! any time while connections are made: files of the owner today, an authority
//! tomorrow. Nothing is ever fetched or made inside a handshake.

mod certificate;
mod certificates;
pub(crate) mod generated;
pub(crate) mod stream;
pub(crate) mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use adit_model::HostName;

pub(crate) use self::certificate::provider;
pub use self::certificate::{CertName, Certificate, CertificateError};
pub use self::certificates::{Certificates, Source};
pub use self::generated::GenerateError;
pub(crate) use self::watch::unix_now;

/// A pair of files, and what was in them when the configuration was read.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The certificate's file.
    pub cert: PathBuf,
    /// Its key's.
    pub key: PathBuf,
    /// Both.
    pub loaded: Arc<Certificate>,
}

/// What was agreed with a visitor.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// The name that it asked for.
    pub(crate) asked: Option<HostName>,
    /// What it was shown.
    pub(crate) certificate: Arc<Certificate>,
}

impl Served {
    /// Whether a request for this host may come over the connection: for the
    /// name that was asked for, for the others of its certificate, and for any
    /// where no name was asked for.
    pub(crate) fn covers(&self, host: &HostName) -> bool {
        self.asked.as_ref().is_none_or(|asked| asked == host) || self.certificate.covers(host)
    }
}
