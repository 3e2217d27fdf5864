//! What an agent remembers in its data folder.
//!
//! ```text
//! identity.json       the agent's Ed25519 key pair, made at the first run
//! lock                held (flock) around each change, never longer
//! joined              the key of the edge that `adit join` named
//! edges/<key>.json    addresses and credential of one edge, by the edge's key
//! names/<name>        one remembered random tunnel name, its edge and target
//! running/<n>.sock    where a running agent says how things stand
//! ```
//!
//! Invariants: a file is complete or absent (written beside, synced, renamed);
//! every file has mode 0600 and every folder made here 0700; any number of
//! processes use one folder; a file that cannot be understood is named in an
//! error and left as it is, never overwritten. A name in use is held by a lock
//! on its file, which the kernel drops with its process, however that ends.

mod edges;
mod file;
mod names;

pub(crate) use edges::WAYS;
pub use edges::{EdgeRecord, Joining};
pub use names::HeldName;

use std::io;
use std::path::{Path, PathBuf};

use adit_model::Identity;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::random;

/// Why saved state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder cannot be made or listed.
    #[error(
        "data folder {path}: {source}: make it readable and writable for this user, or name another"
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written; the one that was there still stands.
    #[error("cannot write {path}: {source}: what was there before is unchanged")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what was once written there.
    #[error(
        "{path} is damaged ({what}): it was left as it is; put back a copy, or move it away to start anew"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A file with a secret can be read by others.
    #[error("{path} holds a secret that other users can read: run chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The process ended in the middle.
    #[error("saving was interrupted")]
    Interrupted,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

/// An agent's data folder. Its calls block on the file system.
#[derive(Clone, Debug)]
pub struct DataFolder {
    root: PathBuf,
}

const IDENTITY: &str = "identity.json";
/// The format of every file here.
const FORMAT: u32 = 1;

/// Secret text in a file, wiped when dropped.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct SecretText(String);

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// An identity as edges and agents alike keep it.
#[derive(Serialize, Deserialize)]
struct IdentityOnDisk {
    format: u32,
    public: String,
    private: SecretText,
}

impl DataFolder {
    /// Opens the folder, making it (mode 0700) where it is absent.
    ///
    /// # Errors
    /// [`StateError::Folder`].
    pub fn open(root: &Path) -> Result<Self, StateError> {
        let folder = Self {
            root: root.to_owned(),
        };
        for path in [root.to_owned(), folder.edges(), folder.names()] {
            file::make_folder(&path).map_err(|source| StateError::Folder { path, source })?;
        }
        Ok(folder)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Whether an identity was made here already.
    #[must_use]
    pub fn has_identity(&self) -> bool {
        self.root.join(IDENTITY).exists()
    }

    /// The agent's identity, made at the first call.
    ///
    /// # Errors
    /// See [`StateError`]; a damaged or exposed file is never replaced.
    pub fn identity(&self) -> Result<Identity, StateError> {
        let path = self.root.join(IDENTITY);
        if let Some(identity) = read_identity(&path)? {
            return Ok(identity);
        }
        let _lock = self.lock()?;
        // Another process may have made it meanwhile.
        if let Some(identity) = read_identity(&path)? {
            return Ok(identity);
        }
        let seed = random::bytes::<32>().map_err(|_| StateError::Random)?;
        let identity = Identity::from_seed(seed).map_err(|_| damaged(&path, "not a key"))?;
        let on_disk = IdentityOnDisk {
            format: FORMAT,
            public: identity.public().to_string(),
            private: SecretText(data_encoding::BASE64URL_NOPAD.encode(&seed)),
        };
        file::write_json(&path, &on_disk)?;
        Ok(identity)
    }

    fn edges(&self) -> PathBuf {
        self.root.join("edges")
    }

    fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// Where running agents listen for their owner.
    pub(crate) fn running(&self) -> PathBuf {
        Self::running_in(&self.root)
    }

    /// The same of a folder that is only looked at.
    pub(crate) fn running_in(root: &Path) -> PathBuf {
        root.join("running")
    }

    /// Makes that folder; what changes in it does so under the lock.
    pub(crate) fn make_running(&self) -> Result<impl Sized + use<>, StateError> {
        let path = self.running();
        file::make_folder(&path).map_err(|source| StateError::Folder { path, source })?;
        self.lock()
    }

    fn lock(&self) -> Result<file::Lock, StateError> {
        file::Lock::take(&self.root.join("lock"))
    }
}

fn read_identity(path: &Path) -> Result<Option<Identity>, StateError> {
    let Some(text) = file::read_secret(path)? else {
        return Ok(None);
    };
    let on_disk: IdentityOnDisk =
        serde_json::from_str(&text).map_err(|_| damaged(path, "not an identity"))?;
    check_format(path, on_disk.format)?;
    let seed = data_encoding::BASE64URL_NOPAD
        .decode(on_disk.private.0.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| damaged(path, "its private key is not base64url"))?;
    let seed: [u8; 32] = seed
        .as_slice()
        .try_into()
        .map_err(|_| damaged(path, "a secret key has 32 bytes"))?;
    let identity = Identity::from_seed(seed).map_err(|_| damaged(path, "not a key"))?;
    if identity.public().to_string() != on_disk.public {
        return Err(damaged(path, "its keys do not belong together"));
    }
    Ok(Some(identity))
}

fn check_format(path: &Path, format: u32) -> Result<(), StateError> {
    match format {
        FORMAT => Ok(()),
        _ => Err(damaged(path, "of another version's format")),
    }
}

fn damaged(path: &Path, what: &'static str) -> StateError {
    StateError::Damaged {
        path: path.to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests;
