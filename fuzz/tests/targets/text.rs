//! Texts that people paste: join strings, names, secrets, PINs.

use adit_fuzz::{holds, target};
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE32_NOPAD;

use adit_model::{Credential, HostName, JoinString, Pin, Psk, PublicKey, TunnelName};

#[test]
fn join_strings() {
    target("join", |input| {
        let text = String::from_utf8_lossy(input);
        if let Ok(join) = text.parse::<JoinString>() {
            assert_eq!(join.expose().parse::<JoinString>().as_ref(), Ok(&join));
            let shown = format!("{join:?}");
            assert!(!shown.contains(join.credential.psk().expose()));
        }
    });
}

/// The fields behind the checksum, which no edit of a text gets past.
#[test]
fn join_fields() {
    target("join-fields", |body| {
        let text = with_checksum(body);
        if let Ok(join) = text.parse::<JoinString>() {
            assert_eq!(join.expose().parse::<JoinString>().as_ref(), Ok(&join));
            assert!(!join.addresses.is_empty());
        }
    });
}

fn with_checksum(body: &[u8]) -> String {
    let sum = digest(&SHA256, body);
    let whole = [body, &sum.as_ref()[..4]].concat();
    format!("adit1{}", BASE32_NOPAD.encode(&whole).to_lowercase())
}

#[test]
fn names_and_secrets() {
    target("names", |input| {
        let text = String::from_utf8_lossy(input);
        if let Ok(host) = HostName::parse(&text) {
            assert_eq!(
                HostName::parse(host.as_str()).as_ref(),
                Ok(&host),
                "one spelling"
            );
            assert!(host.as_str().len() <= 253);
        }
        if let Ok(name) = TunnelName::parse(&text) {
            assert_eq!(TunnelName::parse(name.as_str()).as_ref(), Ok(&name));
        }
        if let Ok(pin) = Pin::parse(&text) {
            assert_eq!(Pin::parse(&pin.expose()).as_ref(), Ok(&pin));
        }
        if let Ok(psk) = Psk::parse(&text) {
            assert!(psk.bytes().len() >= 32);
            assert_eq!(Psk::parse(psk.expose()).as_ref(), Ok(&psk), "one reading");
            assert!(!format!("{psk:?}").contains(psk.expose()));
        }
    });
}

#[test]
fn the_corpus_has_both_join_strings() {
    let psk = Psk::from_random(std::array::from_fn(|i| (i * 37) as u8));
    for (name, credential) in [
        ("shared", Credential::Shared(psk.clone())),
        ("token", Credential::Token(psk)),
    ] {
        let join = JoinString {
            addresses: vec!["edge.example.test:7400".into(), "[::1]:7400".into()],
            doors: Vec::new(),
            edge: PublicKey([9; 32]),
            credential,
        };
        let text = join.expose();
        holds("join", name, text.as_bytes());
        let whole = BASE32_NOPAD.decode(text[5..].to_uppercase().as_bytes());
        let whole = whole.unwrap();
        let body = &whole[..whole.len() - 4];
        assert_eq!(with_checksum(body), text);
        holds("join-fields", name, body);
    }
}
