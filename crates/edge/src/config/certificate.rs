//! Certificates of the configuration.

use std::path::Path;

use adit_config::{Document, Folder, Key, Placed, SecretRef, Section, SectionSpec};
use adit_model::Code;
use zeroize::Zeroizing;

use crate::tls::{Certificate, CertificateError, CertificateFiles, unix_now};

/// `[[certificate]]`.
pub static CERTIFICATE: SectionSpec = SectionSpec {
    name: "certificate",
    repeated: true,
    help: "A certificate for the HTTPS door, as an authority gave it. It serves the names that stand in it, wildcards of one label included; other names get one that the edge makes itself, which visitors' programs do not trust. Changed files are taken without a restart.",
    keys: &[&CERT, &KEY],
};

static CERT: Key<Folder> = Key::required(
    "cert",
    Folder,
    "File of the certificate and those that vouch for it, in PEM (`fullchain.pem`).",
);
static KEY: Key<Folder> = Key::required(
    "key",
    Folder,
    "File of its private key, in PEM, for nobody else to read.",
);

/// Reads all; `None` when one of them is wrong.
pub(super) fn certificates(document: &Document<'_>) -> Option<Vec<CertificateFiles>> {
    let all = document.sections(&CERTIFICATE);
    let read: Vec<_> = all
        .iter()
        .map(|section| certificate(document, section))
        .collect();
    read.into_iter().collect()
}

fn certificate(document: &Document<'_>, section: &Section<'_>) -> Option<CertificateFiles> {
    let (cert, key) = (section.given(&CERT), section.given(&KEY));
    // Each is asked for, so that the mistakes of both are told.
    let chain = cert
        .as_ref()
        .and_then(|given| text(document, "cert", given));
    let secret = key.as_ref().and_then(|given| text(document, "key", given));
    let (cert, key, chain, secret) = (cert?, key?, chain?, secret?);
    match Certificate::from_pem(chain.as_bytes(), secret.as_bytes(), unix_now()) {
        Ok(loaded) => Some(CertificateFiles {
            cert: document.path(&cert.value, &cert.place),
            key: document.path(&key.value, &key.place),
            loaded: loaded.into(),
        }),
        Err(error) => {
            let (name, given) = match error {
                CertificateError::NoKey | CertificateError::BadKey | CertificateError::OtherKey => {
                    ("key", &key)
                }
                _ => ("cert", &cert),
            };
            let file = document.path(&given.value, &given.place);
            let sentence = format!("`{name}`, {}: {error}", file.display());
            let code = Code::CERTIFICATE_BAD;
            document.complain(code, &given.place, &sentence, Some(help(&error)));
            None
        }
    }
}

/// What a file holds; records why it cannot be read.
fn text(
    document: &Document<'_>,
    name: &str,
    given: &Placed<std::path::PathBuf>,
) -> Option<Zeroizing<String>> {
    let path: &Path = &given.value;
    let secret = Placed {
        value: SecretRef::File(path.to_owned()),
        place: given.place.clone(),
    };
    document.reveal(name, &secret)
}

fn help(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::NoCertificate | CertificateError::Damaged => {
            "name the file that your authority gave, in PEM: fullchain.pem"
        }
        CertificateError::NoKey | CertificateError::BadKey => {
            "name the private key's file, in PEM and without a password: privkey.pem"
        }
        CertificateError::OtherKey => "name the key that this certificate was asked for with",
        CertificateError::NoName => "have it made with the names as subjectAltName",
        CertificateError::Expired => {
            "renew it, or remove the table: the edge then makes one itself"
        }
        CertificateError::Early => "see whether this machine's clock is right",
    }
}
