//! The audit log: each decision with its exact cause, for the edge's owner.
//!
//! JSON lines in `audit.log` of the data folder (mode 0600) and one tracing
//! event each. Invariant: at most two files of [`MAX_BYTES`]; the older one is
//! `audit.log.1`. A log that cannot be written stops nothing: the decision
//! stands in the process's log too.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use adit_model::PublicKey;
use serde::Serialize;

use super::policy::Way;
use crate::state::StateError;
use crate::state::folder::Folder;

const NAME: &str = "audit.log";
const OLDER: &str = "audit.log.1";
const MAX_BYTES: u64 = 8 << 20;

/// One line.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Entry {
    /// Unix seconds.
    pub(crate) time: u64,
    /// What was decided about.
    pub(crate) event: &'static str,
    /// How.
    pub(crate) outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    /// By which secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) way: Option<String>,
    /// What the agent says its version is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
}

impl Entry {
    pub(crate) fn new(time: u64, event: &'static str, outcome: &'static str) -> Self {
        Self {
            time,
            event,
            outcome,
            ..Self::default()
        }
    }

    pub(crate) fn because(mut self, cause: &(impl ToString + ?Sized)) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    pub(crate) fn agent(mut self, agent: &PublicKey) -> Self {
        self.agent = Some(agent.to_string());
        self
    }

    pub(crate) fn peer(mut self, peer: SocketAddr) -> Self {
        self.peer = Some(peer.to_string());
        self
    }

    pub(crate) fn way(mut self, way: Way) -> Self {
        self.way = Some(match way {
            Way::SharedSecret => "shared secret".to_owned(),
            Way::Token(id) => format!("token {id}"),
            Way::AgentSecret(_) => "agent secret".to_owned(),
        });
        self
    }

    /// The version is a stranger's text: printable ASCII is left of it.
    pub(crate) fn version(mut self, version: &str) -> Self {
        let is_plain = |c: &char| c.is_ascii_graphic();
        self.version = Some(version.chars().filter(is_plain).take(64).collect());
        self
    }
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

/// The log.
#[derive(Debug)]
pub(crate) struct Audit {
    folder: Arc<Folder>,
    open: Mutex<Open>,
}

impl Audit {
    pub(crate) fn open(folder: Arc<Folder>) -> Result<Self, StateError> {
        let open = open(&folder)?;
        Ok(Self {
            folder,
            open: Mutex::new(open),
        })
    }

    pub(crate) fn write(&self, entry: &Entry) {
        let Entry {
            event,
            outcome,
            cause,
            agent,
            peer,
            way,
            version,
            ..
        } = entry;
        tracing::info!(target: "adit::audit", event, outcome, cause, agent, peer, way, version);
        if let Err(error) = self.append(entry) {
            tracing::error!(%error, "the audit log could not be written");
        }
    }

    fn append(&self, entry: &Entry) -> Result<(), StateError> {
        let path = self.folder.path_of(NAME);
        let mut line = serde_json::to_vec(entry).map_err(|e| StateError::of(&path, e))?;
        line.push(b'\n');
        let mut log = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if log.bytes + line.len() as u64 > MAX_BYTES {
            self.folder.rename(NAME, OLDER)?;
            *log = open(&self.folder)?;
        }
        log.file
            .write_all(&line)
            .map_err(|e| StateError::of(&path, e))?;
        log.bytes += line.len() as u64;
        Ok(())
    }
}

fn open(folder: &Folder) -> Result<Open, StateError> {
    let file = folder.open_append(NAME)?;
    let about = file.metadata();
    let bytes = about
        .map_err(|e| StateError::of(&folder.path_of(NAME), e))?
        .len();
    Ok(Open { file, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json_and_the_files_are_bounded() {
        let top = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(top.path()).unwrap());
        let audit = Audit::open(Arc::clone(&folder)).unwrap();
        let entry = Entry::new(5, "admission", "refused")
            .because(&"x".repeat(500_000))
            .agent(&PublicKey([1; 32]))
            .way(Way::SharedSecret)
            .version("1.0\n\u{1b}[31mred");
        for _ in 0..40 {
            audit.write(&entry);
        }
        drop(audit);
        audit_reopens(&folder, &entry);
        let (mut lines, mut files) = (0, 0);
        for file in std::fs::read_dir(top.path()).unwrap() {
            let path = file.unwrap().path();
            if !path.to_string_lossy().contains("audit.log") {
                continue;
            }
            assert!(path.metadata().unwrap().len() <= MAX_BYTES);
            files += 1;
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(line["way"], "shared secret");
                assert_eq!(line["version"], "1.0[31mred");
                lines += 1;
            }
        }
        assert_eq!(files, 2);
        assert!(lines > 16, "{lines}");
    }

    fn audit_reopens(folder: &Arc<Folder>, entry: &Entry) {
        let before = std::fs::metadata(folder.path_of(NAME)).unwrap().len();
        Audit::open(Arc::clone(folder)).unwrap().write(entry);
        let after = std::fs::metadata(folder.path_of(NAME)).unwrap().len();
        assert!(after > before);
    }
}
