//! The certificate that the edge makes for itself, for names that nobody else
//! has signed for.
//!
//! It names the domain and what is one label below it, and nothing that tells
//! this program from another. It is kept with its key in one file of the data
//! folder, so that the two always belong together, and made anew before it
//! ends or when the domain is another.

use std::net::IpAddr;
use std::sync::Arc;

use adit_model::Domain;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{Certificate, CertificateError};
use crate::state::StateError;
use crate::state::folder::Folder;

/// Where it is kept.
const FILE: &str = "certificate.pem";
/// How long it is good for.
const DAYS: i64 = 397;
/// So long before its end it is made anew.
const EARLY: u64 = 30 * DAY;
const DAY: u64 = 86_400;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The data folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// It cannot be made for this domain.
    #[error("no certificate can be made for {0}: {1}")]
    Make(String, rcgen::Error),
    /// What was made is not understood.
    #[error("the certificate that was made cannot be used: {0}")]
    Unusable(CertificateError),
}

/// Makes and keeps it.
#[derive(Debug)]
pub(crate) struct Generator {
    folder: Arc<Folder>,
    domain: Domain,
}

impl Generator {
    pub(crate) fn new(folder: Arc<Folder>, domain: Domain) -> Self {
        Self { folder, domain }
    }

    /// The one that is kept; a new one when that ends soon, or is for others.
    pub(crate) fn open(&self, now: u64) -> Result<Arc<Certificate>, GenerateError> {
        if let Some(kept) = self.folder.read(FILE)?.map(Zeroizing::new) {
            match Certificate::from_pem(&kept, &kept, now) {
                Ok(kept) if self.is_good(&kept, now) => return Ok(Arc::new(kept)),
                Ok(_) | Err(CertificateError::Expired | CertificateError::Early) => {}
                Err(error) => {
                    let path = self.folder.path_of(FILE);
                    return Err(StateError::damaged(&path, error.to_string()).into());
                }
            }
        }
        self.make(now)
    }

    /// Whether it is for these names and does not end soon.
    pub(crate) fn is_good(&self, certificate: &Certificate, now: u64) -> bool {
        let names: Vec<_> = certificate
            .names()
            .iter()
            .map(ToString::to_string)
            .collect();
        let is_address = self.address().is_some();
        let same = is_address || names == self.names();
        same && certificate.not_after() > now.saturating_add(EARLY)
    }

    /// An address has no names below it.
    fn address(&self) -> Option<IpAddr> {
        let host = self.domain.host().as_str();
        host.trim_matches(['[', ']']).parse().ok()
    }

    fn names(&self) -> Vec<String> {
        match self.address() {
            Some(address) => vec![address.to_string()],
            None => {
                let host = self.domain.host();
                vec![host.to_string(), format!("*.{host}")]
            }
        }
    }

    fn make(&self, now: u64) -> Result<Arc<Certificate>, GenerateError> {
        let failed = |error| GenerateError::Make(self.domain.host().to_string(), error);
        let key = KeyPair::generate().map_err(failed)?;
        let params = self.params(now).map_err(failed)?;
        let made = params.self_signed(&key).map_err(failed)?;
        let pem = Zeroizing::new([made.pem(), key.serialize_pem()].concat());
        let certificate = Certificate::from_pem(pem.as_bytes(), pem.as_bytes(), now);
        let certificate = certificate.map_err(GenerateError::Unusable)?;
        self.folder.write(FILE, pem.as_bytes())?;
        Ok(Arc::new(certificate))
    }

    fn params(&self, now: u64) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::new(self.names())?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, self.domain.host().as_str());
        params.distinguished_name = name;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let seconds = i64::try_from(now).unwrap_or(0);
        let epoch = date_time_ymd(1970, 1, 1);
        let today = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(epoch);
        // Clocks of visitors are a little wrong, too.
        params.not_before = today.saturating_sub(time::Duration::DAY);
        params.not_after = today.saturating_add(time::Duration::days(DAYS));
        Ok(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn generator(folder: &Arc<Folder>, domain: &str) -> Generator {
        Generator::new(Arc::clone(folder), Domain::parse(domain).unwrap())
    }

    #[test]
    fn it_is_kept_and_made_anew_in_time() {
        let top = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(top.path()).unwrap());
        let own = generator(&folder, "Example.test");
        let first = own.open(NOW).unwrap();
        let names: Vec<_> = first.names().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["example.test", "*.example.test"]);
        let again = |at| own.open(at).unwrap().fingerprint();
        assert_eq!(again(NOW + 300 * DAY), first.fingerprint());
        // A clock that goes back a little is no reason.
        assert_eq!(again(NOW - 3600), first.fingerprint());
        let second = again(NOW + 370 * DAY);
        assert_ne!(second, first.fingerprint());
        assert_eq!(again(NOW + 370 * DAY), second);
        let other = generator(&folder, "other.test")
            .open(NOW + 370 * DAY)
            .unwrap();
        assert!(other.covers(&"app.other.test".parse_host()));
        // Over for years.
        assert_ne!(again(NOW + 5000 * DAY), second);
        let mode = std::fs::metadata(top.path().join(FILE)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_damaged_is_named_and_left() {
        let top = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(top.path()).unwrap());
        folder.write(FILE, b"nothing of the kind").unwrap();
        let error = generator(&folder, "example.test").open(NOW).unwrap_err();
        assert!(
            error.to_string().contains("certificate.pem is damaged"),
            "{error}"
        );
        assert_eq!(folder.read(FILE).unwrap().unwrap(), b"nothing of the kind");
    }

    #[test]
    fn it_tells_nothing_of_who_made_it() {
        let top = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(top.path()).unwrap());
        generator(&folder, "example.test").open(NOW).unwrap();
        let pem = folder.read(FILE).unwrap().unwrap();
        let text = String::from_utf8(pem).unwrap();
        let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----").unwrap();
        let (body, _) = rest.split_once("-----END").unwrap();
        let body: String = body.split_whitespace().collect();
        let der = data_encoding::BASE64.decode(body.as_bytes()).unwrap();
        for word in ["adit", "rcgen", "Adit", "edge"] {
            assert!(
                !der.windows(word.len()).any(|w| w == word.as_bytes()),
                "{word}"
            );
        }
    }

    trait ParseHost {
        fn parse_host(&self) -> adit_model::HostName;
    }

    impl ParseHost for str {
        fn parse_host(&self) -> adit_model::HostName {
            adit_model::HostName::parse(self).unwrap()
        }
    }
}
