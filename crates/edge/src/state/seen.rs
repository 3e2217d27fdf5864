//! The log of seen proofs: what survives a killed process, so that no first
//! message works twice.
//!
//! A header line with the boot id, then records of 32 bytes. A record is one
//! `write` and survives the process; it is not synced, so that after a reboot
//! the log cannot be trusted: a log of another boot is thrown away and
//! timestamps must then be newer than the start (see [`Seen::rebooted`]).
//! Invariant: the file never holds more than [`MAX_RECORDS`] records.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use super::error::StateError;
use super::folder::Folder;

const NAME: &str = "seen";
const MAGIC: &str = "adit seen proofs, format ";
const RECORD: usize = 32;
/// Most records in the file: 4 MiB. Only holders of a secret can add to it.
pub(super) const MAX_RECORDS: usize = 131_072;
/// Compacting pays from here on.
const WORTH: usize = 16_384;

/// One proof that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenProof {
    /// The changing id of the secret.
    pub id: [u8; 8],
    /// The single-use number.
    pub nonce: [u8; 16],
    /// The timestamp in it, unix seconds.
    pub stamp: u64,
}

impl SeenProof {
    fn to_bytes(self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..8].copy_from_slice(&self.id);
        bytes[8..24].copy_from_slice(&self.nonce);
        bytes[24..].copy_from_slice(&self.stamp.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; RECORD]) -> Self {
        let (mut id, mut nonce, mut stamp) = ([0; 8], [0; 16], [0; 8]);
        id.copy_from_slice(&bytes[..8]);
        nonce.copy_from_slice(&bytes[8..24]);
        stamp.copy_from_slice(&bytes[24..]);
        let stamp = u64::from_be_bytes(stamp);
        Self { id, nonce, stamp }
    }
}

/// What the log held at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Proofs seen before, of this boot.
    pub proofs: Vec<SeenProof>,
    /// Proofs may have been seen that the log does not hold: the machine was
    /// restarted, or the log is gone. Only timestamps newer than the start of
    /// the process by the window can then be trusted.
    pub rebooted: bool,
}

/// The open log.
#[derive(Debug)]
pub(super) struct SeenLog {
    folder: Arc<Folder>,
    boot: String,
    file: File,
    records: usize,
}

impl SeenLog {
    /// Opens the log. `is_new`: the whole folder is new, nothing can have been
    /// seen.
    pub(super) fn open(
        folder: Arc<Folder>,
        boot: String,
        is_new: bool,
    ) -> Result<(Self, Seen), StateError> {
        let seen = match folder.read(NAME)? {
            Some(bytes) if !bytes.is_empty() => read(&folder, &bytes, &boot)?,
            _ => Seen {
                proofs: Vec::new(),
                rebooted: !is_new,
            },
        };
        let file = rewrite(&folder, &boot, &seen.proofs)?;
        let log = Self {
            folder,
            boot,
            file,
            records: seen.proofs.len(),
        };
        Ok((log, seen))
    }

    /// Adds a proof: it is with the kernel when this returns. Proofs older than
    /// `oldest` may be forgotten when the file is full.
    pub(super) fn append(&mut self, proof: &SeenProof, oldest: u64) -> Result<(), StateError> {
        if self.records >= MAX_RECORDS {
            self.compact(oldest)?;
        }
        if self.records >= MAX_RECORDS {
            let path = self.folder.path_of(NAME);
            return Err(StateError::of(&path, rustix::io::Errno::FBIG));
        }
        let written = self.file.write_all(&proof.to_bytes());
        if let Err(error) = written {
            // Half a record would shift all that follow.
            let whole = self.header_len() + self.records * RECORD;
            let _ = self.file.set_len(whole as u64);
            return Err(StateError::of(&self.folder.path_of(NAME), error));
        }
        self.records += 1;
        Ok(())
    }

    /// Whether [`SeenLog::compact`] would pay.
    pub(super) fn is_worth_compacting(&self) -> bool {
        self.records >= WORTH
    }

    /// Forgets proofs with timestamps before `oldest`.
    pub(super) fn compact(&mut self, oldest: u64) -> Result<(), StateError> {
        let bytes = self.folder.read(NAME)?.unwrap_or_default();
        let mut proofs = read(&self.folder, &bytes, &self.boot)?.proofs;
        proofs.retain(|proof| proof.stamp >= oldest);
        self.file = rewrite(&self.folder, &self.boot, &proofs)?;
        self.records = proofs.len();
        Ok(())
    }

    fn header_len(&self) -> usize {
        header(&self.boot).len()
    }
}

fn header(boot: &str) -> String {
    format!("{MAGIC}1, boot {boot}\n")
}

fn read(folder: &Folder, bytes: &[u8], boot: &str) -> Result<Seen, StateError> {
    let path = folder.path_of(NAME);
    let end = bytes.iter().position(|&b| b == b'\n');
    let (head, records) = bytes.split_at(end.map_or(0, |end| end + 1));
    let head = std::str::from_utf8(head).unwrap_or_default();
    let Some(rest) = head.strip_prefix(MAGIC) else {
        return Err(StateError::damaged(&path, "its first line is another's"));
    };
    if !rest.starts_with("1,") {
        return Err(StateError::Newer(path));
    }
    // An unknown boot is never the same as another unknown one.
    if boot.is_empty() || head != header(boot) {
        return Ok(Seen {
            proofs: Vec::new(),
            rebooted: true,
        });
    }
    // A last record that is not whole was never answered to.
    let (records, _) = records.as_chunks::<RECORD>();
    Ok(Seen {
        proofs: records.iter().map(SeenProof::from_bytes).collect(),
        rebooted: false,
    })
}

fn rewrite(folder: &Folder, boot: &str, proofs: &[SeenProof]) -> Result<File, StateError> {
    let mut bytes = header(boot).into_bytes();
    for proof in proofs {
        bytes.extend_from_slice(&proof.to_bytes());
    }
    folder.write(NAME, &bytes)?;
    folder.open_append(NAME)
}

/// The id of this boot of the machine; empty where the system has none.
pub(super) fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let is_word = |b: u8| b.is_ascii_hexdigit() || b == b'-';
    let id = id.trim();
    let is_id = id.len() <= 64 && id.bytes().all(is_word);
    if is_id { id.to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Arc<Folder>) {
        let top = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(top.path()).unwrap());
        (top, folder)
    }

    fn proof(n: u64) -> SeenProof {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&n.to_be_bytes());
        SeenProof {
            id: [7; 8],
            nonce,
            stamp: n,
        }
    }

    fn open(folder: &Arc<Folder>, boot: &str) -> (SeenLog, Seen) {
        SeenLog::open(Arc::clone(folder), boot.to_owned(), false).unwrap()
    }

    #[test]
    fn proofs_survive_the_process_and_not_the_boot() {
        let (_top, folder) = folder();
        let (mut log, seen) = SeenLog::open(Arc::clone(&folder), "b1".into(), true).unwrap();
        assert_eq!(seen, Seen::default());
        for n in 0..3 {
            log.append(&proof(n), 0).unwrap();
        }
        // As after kill -9: nothing was closed or synced.
        std::mem::forget(log);
        let (log, seen) = open(&folder, "b1");
        assert_eq!(seen.proofs, [proof(0), proof(1), proof(2)]);
        assert!(!seen.rebooted);
        drop(log);
        let (_, seen) = open(&folder, "b2");
        assert!(seen.proofs.is_empty() && seen.rebooted);
    }

    #[test]
    fn a_missing_log_and_an_unknown_boot_count_as_a_reboot() {
        let (_top, folder) = folder();
        assert!(open(&folder, "b1").1.rebooted);
        folder.write(NAME, b"").unwrap();
        assert!(open(&folder, "b1").1.rebooted);
        assert!(open(&folder, "").1.rebooted);
        assert!(open(&folder, "").1.rebooted);
    }

    #[test]
    fn half_a_record_is_dropped() {
        let (top, folder) = folder();
        let (mut log, _) = open(&folder, "b1");
        log.append(&proof(1), 0).unwrap();
        log.append(&proof(2), 0).unwrap();
        drop(log);
        let path = top.path().join(NAME);
        let whole = std::fs::metadata(&path).unwrap().len();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(whole - 5).unwrap();
        let (mut log, seen) = open(&folder, "b1");
        assert_eq!(seen.proofs, [proof(1)]);
        log.append(&proof(3), 0).unwrap();
        drop(log);
        assert_eq!(open(&folder, "b1").1.proofs, [proof(1), proof(3)]);
    }

    #[test]
    fn compacting_keeps_what_may_still_be_replayed() {
        let (_top, folder) = folder();
        let (mut log, _) = open(&folder, "b1");
        for n in 0..WORTH as u64 {
            log.append(&proof(n), 0).unwrap();
        }
        assert!(log.is_worth_compacting());
        log.compact(WORTH as u64 - 2).unwrap();
        log.append(&proof(1 << 40), 0).unwrap();
        drop(log);
        let seen = open(&folder, "b1").1.proofs;
        let last = WORTH as u64 - 1;
        assert_eq!(seen, [proof(last - 1), proof(last), proof(1 << 40)]);
    }

    #[test]
    fn the_file_is_bounded() {
        let (top, folder) = folder();
        let (mut log, _) = open(&folder, "b1");
        for n in 0..MAX_RECORDS as u64 {
            log.append(&proof(n), 0).unwrap();
        }
        assert!(log.append(&proof(0), 0).is_err());
        log.append(&proof(0), MAX_RECORDS as u64 - 10).unwrap();
        assert!(std::fs::metadata(top.path().join(NAME)).unwrap().len() < 1000);
    }

    #[test]
    fn another_file_in_its_place_is_left_alone() {
        let (_top, folder) = folder();
        for (text, is_newer) in [
            ("hello\n", false),
            ("adit seen proofs, format 2, x\n", true),
        ] {
            folder.write(NAME, text.as_bytes()).unwrap();
            let error = SeenLog::open(Arc::clone(&folder), "b1".into(), false).unwrap_err();
            assert_eq!(matches!(error, StateError::Newer(_)), is_newer, "{error}");
            assert_eq!(folder.read(NAME).unwrap().unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn this_machine_has_a_boot_id() {
        assert_eq!(boot_id(), boot_id());
        assert!(boot_id().len() >= 32);
    }
}
