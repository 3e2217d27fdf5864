//! Looks after certificates while the edge runs: files that changed are taken
//! in, one that ends soon is told of, the edge's own is made anew in time.
//!
//! A file counts as changed when it has been the same for two looks in a row,
//! so that a pair that is just being replaced is read when both halves are
//! there. What cannot be used is left alone, told of once, and the old pair
//! goes on.

use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_model::Code;
use zeroize::Zeroizing;

use super::generated::Generator;
use super::{Certificate, CertificateFiles, Certificates, Source};
use crate::metrics::Metrics;

/// How often files are looked at.
pub(crate) const EVERY: Duration = Duration::from_secs(2);
/// Who has not renewed a certificate by then has probably forgotten it.
const WARN: u64 = 14 * DAY;
const DAY: u64 = 86_400;
/// Most bytes of a file.
const MOST: u64 = 1 << 20;

/// What tells that a file is another: device, inode, size, time of change.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// One pair of files.
struct Pair {
    files: CertificateFiles,
    current: Arc<Certificate>,
    /// As it was at the last look.
    seen: [Stamp; 2],
    /// As it was when it was read.
    read: Option<[Stamp; 2]>,
    /// The day on which its end was last told of.
    warned: u64,
}

/// What is looked after.
pub(crate) struct Watch {
    pairs: Vec<Pair>,
    generator: Generator,
    generated: Arc<Certificate>,
    certificates: Arc<Certificates>,
    metrics: Arc<Metrics>,
}

impl Watch {
    /// Shows what there is at the start.
    pub(crate) fn new(
        files: &[CertificateFiles],
        (generator, generated): (Generator, Arc<Certificate>),
        metrics: Arc<Metrics>,
    ) -> Self {
        let pairs = files.iter().map(|files| Pair {
            current: Arc::clone(&files.loaded),
            files: files.clone(),
            seen: [None; 2],
            read: None,
            warned: 0,
        });
        let mut watch = Self {
            pairs: pairs.collect(),
            generator,
            generated,
            certificates: Certificates::new(),
            metrics,
        };
        watch.show_files();
        watch.show_generated();
        watch.warn(unix_now());
        watch
    }

    pub(crate) fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// The edge's own.
    pub(crate) fn generated(&self) -> &Arc<Certificate> {
        &self.generated
    }

    /// Looks at everything once; blocks on the disk.
    pub(crate) fn look(&mut self) {
        let now = unix_now();
        let mut changed = false;
        for pair in &mut self.pairs {
            changed |= pair.look(now, &self.metrics);
        }
        if changed {
            self.show_files();
        }
        if !self.generator.is_good(&self.generated, now) {
            match self.generator.open(now) {
                Ok(fresh) => {
                    tracing::info!(
                        sha256 = fresh.fingerprint(),
                        "made the edge's own certificate anew"
                    );
                    self.generated = fresh;
                    self.show_generated();
                }
                Err(error) => {
                    tracing::warn!(code = %Code::CERTIFICATE_KEPT, %error, "the edge's own certificate could not be made anew");
                }
            }
        }
        self.warn(now);
    }

    fn show_files(&self) {
        let all = self.pairs.iter().map(|pair| Arc::clone(&pair.current));
        self.certificates.replace(Source::Files, all.collect());
        self.count();
    }

    fn show_generated(&self) {
        let own = vec![Arc::clone(&self.generated)];
        self.certificates.replace(Source::Generated, own);
        self.count();
    }

    fn count(&self) {
        let all = self.certificates.all();
        let first = all.iter().map(|(_, one)| one.not_after()).min();
        let tls = &self.metrics.tls;
        tls.certificates.set(all.len());
        tls.expiry
            .set(first.and_then(|at| usize::try_from(at).ok()).unwrap_or(0));
    }

    /// Tells once a day of files whose certificate ends soon.
    fn warn(&mut self, now: u64) {
        for pair in &mut self.pairs {
            let left = pair.current.not_after().saturating_sub(now);
            if left < WARN && pair.warned != now / DAY {
                pair.warned = now / DAY;
                let file = pair.files.cert.display();
                let code = Code::CERTIFICATE_ENDS;
                tracing::warn!(%code, %file, days = left / DAY, "a certificate ends soon: renew it");
            }
        }
    }
}

impl Pair {
    /// Whether there is another certificate now.
    fn look(&mut self, now: u64, metrics: &Metrics) -> bool {
        let stamps = [&self.files.cert, &self.files.key].map(stamp);
        let settled = std::mem::replace(&mut self.seen, stamps) == stamps;
        if !settled || self.read == Some(stamps) {
            return false;
        }
        let first = self.read.replace(stamps).is_none();
        let file = self.files.cert.display();
        match self.files.read(now) {
            // As it was read with the configuration.
            Ok(same) if first && same.fingerprint() == self.current.fingerprint() => false,
            Ok(fresh) => {
                metrics.tls.reloads.add(1);
                tracing::info!(%file, sha256 = fresh.fingerprint(), "a changed certificate is served");
                self.current = Arc::new(fresh);
                self.warned = 0;
                true
            }
            Err(why) => {
                metrics.tls.reload_failures.add(1);
                let code = Code::CERTIFICATE_KEPT;
                tracing::warn!(%code, %file, why, "a changed certificate cannot be used; the one before is served on");
                false
            }
        }
    }
}

impl CertificateFiles {
    /// Reads both files.
    fn read(&self, now: u64) -> Result<Certificate, String> {
        let of = |path: &Path| {
            let read = read_file(path);
            read.map_err(|error| format!("{} cannot be read: {error}", path.display()))
        };
        let (cert, key) = (of(&self.cert)?, of(&self.key)?);
        Certificate::from_pem(&cert, &key, now).map_err(|error| error.to_string())
    }
}

fn read_file(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path)?
        .take(MOST)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn stamp(path: impl AsRef<Path>) -> Stamp {
    let of = |found: Metadata| {
        (
            found.dev(),
            found.ino(),
            found.size(),
            found.mtime(),
            found.mtime_nsec(),
        )
    };
    std::fs::metadata(path).ok().map(of)
}

/// Now, in unix seconds.
pub(crate) fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
