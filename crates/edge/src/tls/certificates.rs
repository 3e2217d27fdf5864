//! Which certificate serves which name.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use adit_model::HostName;
use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{CertName, Certificate};

/// Where certificates come from. Of two that are good for a name the one from
/// the earlier source is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `[[certificate]]` of the configuration.
    Files,
    /// Made by this edge, for names that nobody else has signed for.
    Generated,
}

impl Source {
    const ALL: [Self; 2] = [Self::Files, Self::Generated];

    /// What reports call it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Files => "file",
            Self::Generated => "generated",
        }
    }
}

type Placed = (Source, Arc<Certificate>);

/// The certificates of one moment.
#[derive(Debug, Default)]
struct Table {
    exact: HashMap<Box<str>, Placed>,
    /// By what stands behind the star's dot.
    below: HashMap<Box<str>, Placed>,
    /// For visitors that ask for no name, or for another.
    default: Option<Arc<Certificate>>,
    all: Vec<Placed>,
}

impl Table {
    fn of(all: Vec<Placed>) -> Self {
        let mut table = Self {
            default: all.first().map(|(_, first)| Arc::clone(first)),
            ..Self::default()
        };
        for placed in &all {
            for name in placed.1.names() {
                let (map, name) = match name {
                    CertName::Exact(name) => (&mut table.exact, name),
                    CertName::Below(parent) => (&mut table.below, parent),
                };
                // The first one stays.
                map.entry(name.as_str().into())
                    .or_insert_with(|| placed.clone());
            }
        }
        table.all = all;
        table
    }

    fn find(&self, host: &str) -> Option<&Arc<Certificate>> {
        let exact = self.exact.get(host);
        let below = host
            .split_once('.')
            .and_then(|(_, parent)| self.below.get(parent));
        match (exact, below) {
            // A name of its own goes first, but not before a better source.
            (Some((of_exact, _)), Some((of_below, found))) if of_below < of_exact => Some(found),
            (Some((_, found)), _) | (None, Some((_, found))) => Some(found),
            (None, None) => None,
        }
    }
}

/// All certificates: read without a lock, replaced by source.
pub struct Certificates {
    table: ArcSwap<Table>,
    /// Held while a source replaces its own.
    replacing: Mutex<()>,
}

impl Certificates {
    /// None yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            table: ArcSwap::default(),
            replacing: Mutex::new(()),
        })
    }

    /// Gives a source these certificates in place of those that it had; those
    /// of the others stay. Handshakes that have begun end with what they began
    /// with.
    pub fn replace(&self, source: Source, certificates: Vec<Arc<Certificate>>) {
        let _turn = self
            .replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut fresh = Some(certificates);
        let before = self.table.load();
        let mut all = Vec::new();
        for of in Source::ALL {
            if of == source {
                let fresh = fresh.take().unwrap_or_default();
                all.extend(fresh.into_iter().map(|one| (of, one)));
            } else {
                all.extend(before.all.iter().filter(|(from, _)| *from == of).cloned());
            }
        }
        self.table.store(Arc::new(Table::of(all)));
    }

    /// What a visitor that asks for this name is shown: the name's own, else
    /// what everybody is shown who asks for nothing that is known here.
    #[must_use]
    pub fn find(&self, host: Option<&HostName>) -> Option<Arc<Certificate>> {
        let table = self.table.load();
        let own = host.and_then(|host| table.find(host.as_str()));
        own.or(table.default.as_ref()).map(Arc::clone)
    }

    /// All of them, the earliest source first.
    #[must_use]
    pub fn all(&self) -> Vec<(Source, Arc<Certificate>)> {
        self.table.load().all.clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello
            .server_name()
            .and_then(|name| HostName::parse(name).ok());
        let found = self.find(host.as_ref())?;
        Some(Arc::clone(found.key()))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.table.load().all).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> Arc<Certificate> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let read = Certificate::from_pem(cert.as_bytes(), key.as_bytes(), 1_800_000_000);
        Arc::new(read.unwrap())
    }

    fn found(all: &Certificates, host: &str, wanted: &Arc<Certificate>) -> bool {
        let host = HostName::parse(host).unwrap();
        all.find(Some(&host)).unwrap().fingerprint() == wanted.fingerprint()
    }

    #[test]
    fn the_owners_go_first_and_a_name_before_a_star() {
        let all = Certificates::new();
        assert!(all.find(None).is_none());
        let own = certificate(&["example.test", "*.example.test", "app.other.test"]);
        all.replace(Source::Generated, vec![Arc::clone(&own)]);
        assert!(found(&all, "app.example.test", &own));
        assert!(found(&all, "unknown.test", &own));
        let wild = certificate(&["*.example.test", "*.other.test"]);
        let exact = certificate(&["app.example.test"]);
        let files = || vec![Arc::clone(&wild), Arc::clone(&exact)];
        all.replace(Source::Files, files());
        assert!(found(&all, "app.example.test", &exact));
        assert!(found(&all, "web.example.test", &wild));
        // A star of the owner's is better than a name of the edge's own.
        assert!(found(&all, "app.other.test", &wild));
        assert!(found(&all, "example.test", &own));
        assert!(
            found(&all, "a.b.example.test", &wild),
            "the first is for all others"
        );
        assert_eq!(all.find(None).unwrap().fingerprint(), wild.fingerprint());
        // Each source replaces its own alone.
        let newer = certificate(&["example.test"]);
        all.replace(Source::Generated, vec![Arc::clone(&newer)]);
        assert!(found(&all, "example.test", &newer));
        assert!(found(&all, "web.example.test", &wild));
        let sources: Vec<_> = all.all().iter().map(|(source, _)| *source).collect();
        assert_eq!(sources, [Source::Files, Source::Files, Source::Generated]);
        all.replace(Source::Files, Vec::new());
        assert!(found(&all, "web.example.test", &newer));
    }
}
