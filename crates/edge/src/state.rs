//! The edge's data folder: identity, shared secret, agents, tokens, seen
//! proofs.
//!
//! | file | holds |
//! |---|---|
//! | `lock` | held while a process uses the folder |
//! | `format` | the format of the folder, one line |
//! | `identity.json` | the edge's key pair |
//! | `secret` | the shared secret as text, unless the configuration has one |
//! | `agents.json` | enrolled agents and join tokens |
//! | `seen` | the log of seen proofs |
//!
//! Invariants: what is damaged or newer is named and never overwritten; a file
//! is replaced whole or not at all; a change is on disk when
//! [`Store::commit`] has returned, and several that wait share one write.

mod books;
mod error;
pub(crate) mod folder;
mod records;
mod seen;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_model::{Identity, Psk};
use zeroize::Zeroizing;

pub use self::books::{
    AdmittedBy, Agent, Books, BooksFull, MAX_AGENTS, MAX_TOKENS, NotATokenId, TOKEN_MEMORY, Token,
    TokenId, TokenRefused, TokenState,
};
pub use self::error::StateError;
use self::folder::Folder;
use self::records::RecordError;
use self::seen::SeenLog;
pub use self::seen::{Seen, SeenProof};
use adit_link::entropy::random;

const FORMAT: &str = "format";
const FORMAT_MAGIC: &str = "adit edge data, format ";
const IDENTITY: &str = "identity.json";
const SECRET: &str = "secret";
const BOOKS: &str = "agents.json";

#[derive(Debug)]
struct SharedSecret {
    psk: Psk,
    is_configured: bool,
}

/// How much a change matters to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing has changed.
    Nothing,
    /// Written with the next change, or by [`Store::flush`].
    Later,
    /// Written by the next [`Store::commit`].
    Now,
}

#[derive(Debug)]
struct Tracked {
    books: Books,
    /// Counts changes that a commit waits for.
    changes: u64,
    /// There are others.
    has_later: bool,
}

/// The open data folder.
#[derive(Debug)]
pub struct Store {
    folder: Arc<Folder>,
    identity: Arc<Identity>,
    secret: Mutex<SharedSecret>,
    books: Mutex<Tracked>,
    seen: Mutex<SeenLog>,
    /// Up to which change the file is written.
    saved: AtomicU64,
    /// Held while the books are written.
    writing: Mutex<()>,
    /// Held by the one commit that waits for a writing thread.
    turn: tokio::sync::Mutex<()>,
}

impl Store {
    /// Opens the folder and creates what is not there yet. `configured` is the
    /// shared secret of the configuration, if it has one.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn open(path: &Path, configured: Option<Psk>) -> Result<(Self, Seen), StateError> {
        Self::open_at_boot(path, configured, seen::boot_id())
    }

    fn open_at_boot(
        path: &Path,
        configured: Option<Psk>,
        boot: String,
    ) -> Result<(Self, Seen), StateError> {
        let folder = Arc::new(Folder::open(path)?);
        let is_new = open_format(&folder)?;
        let books = read_books(&folder)?;
        let identity = open_identity(&folder, books.agents().len() > 0)?;
        let secret = open_secret(&folder, configured)?;
        let (log, seen) = SeenLog::open(Arc::clone(&folder), boot, is_new)?;
        let store = Self {
            folder,
            identity: Arc::new(identity),
            secret: Mutex::new(secret),
            books: Mutex::new(Tracked {
                books,
                changes: 0,
                has_later: false,
            }),
            seen: Mutex::new(log),
            saved: AtomicU64::new(0),
            writing: Mutex::new(()),
            turn: tokio::sync::Mutex::new(()),
        };
        Ok((store, seen))
    }

    /// The edge's identity.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The shared secret.
    #[must_use]
    pub fn shared_secret(&self) -> Psk {
        lock(&self.secret).psk.clone()
    }

    /// Makes a new shared secret; enrolled agents stay.
    ///
    /// # Errors
    /// [`StateError::SecretIsConfigured`], or that it could not be written; the
    /// old one then goes on.
    pub fn rotate_secret(&self) -> Result<Psk, StateError> {
        let mut secret = lock(&self.secret);
        if secret.is_configured {
            return Err(StateError::SecretIsConfigured);
        }
        secret.psk = make_secret(&self.folder)?;
        Ok(secret.psk.clone())
    }

    /// Looks at agents and tokens; short, because all others wait.
    pub fn read<R>(&self, look: impl FnOnce(&Books) -> R) -> R {
        look(&lock(&self.books).books)
    }

    /// Changes agents and tokens in memory; [`Store::commit`] makes it last.
    pub fn change<R>(&self, change: impl FnOnce(&mut Books) -> (Keep, R)) -> R {
        let mut tracked = lock(&self.books);
        let (keep, result) = change(&mut tracked.books);
        tracked.changes += u64::from(keep == Keep::Now);
        tracked.has_later |= keep == Keep::Later;
        result
    }

    /// Commits what could wait too.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn flush(self: &Arc<Self>) -> Result<(), StateError> {
        {
            let mut tracked = lock(&self.books);
            tracked.changes += u64::from(tracked.has_later);
        }
        self.commit().await
    }

    /// Returns when all changes made before are on disk.
    ///
    /// # Errors
    /// What the disk says; the changes then hold in memory only, and the next
    /// commit tries them again.
    pub async fn commit(self: &Arc<Self>) -> Result<(), StateError> {
        let wanted = lock(&self.books).changes;
        if self.saved.load(Ordering::Acquire) >= wanted {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        if self.saved.load(Ordering::Acquire) >= wanted {
            return Ok(());
        }
        let store = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || store.save()).await;
        written.unwrap_or_else(|gone| {
            let path = self.folder.path_of(BOOKS);
            Err(StateError::of(&path, std::io::Error::other(gone)))
        })
    }

    /// Like [`Store::commit`] on this very thread.
    ///
    /// # Errors
    /// As there.
    pub fn save(&self) -> Result<(), StateError> {
        let _writing = lock(&self.writing);
        let (bytes, changes) = {
            let mut tracked = lock(&self.books);
            if self.saved.load(Ordering::Acquire) >= tracked.changes {
                return Ok(());
            }
            tracked.has_later = false;
            (records::write_books(&tracked.books), tracked.changes)
        };
        let bytes = bytes.map_err(|error| self.understood(BOOKS, error))?;
        self.folder.write(BOOKS, &bytes)?;
        self.saved.store(changes, Ordering::Release);
        Ok(())
    }

    /// Logs a proof as seen; it survives the process when this returns. Proofs
    /// with timestamps before `oldest` may be forgotten.
    ///
    /// # Errors
    /// What the disk says; the proof must then not be answered.
    pub fn remember_proof(&self, proof: &SeenProof, oldest: u64) -> Result<(), StateError> {
        lock(&self.seen).append(proof, oldest)
    }

    /// Shortens the log of seen proofs when that pays; blocks on the disk.
    ///
    /// # Errors
    /// What the disk says; the log then goes on as it is.
    pub fn compact_proofs(&self, oldest: u64) -> Result<(), StateError> {
        let mut log = lock(&self.seen);
        if log.is_worth_compacting() {
            log.compact(oldest)
        } else {
            Ok(())
        }
    }

    /// The path of a file in the folder, for messages.
    #[must_use]
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.folder.path_of(name)
    }

    pub(crate) fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    fn understood(&self, name: &str, error: RecordError) -> StateError {
        understood(&self.folder, name, error)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn understood(folder: &Folder, name: &str, error: RecordError) -> StateError {
    let path = folder.path_of(name);
    match error {
        RecordError::Newer => StateError::Newer(path),
        RecordError::Damaged(problem) => StateError::damaged(&path, problem),
    }
}

/// Checks the folder's format; true when the folder is new.
fn open_format(folder: &Folder) -> Result<bool, StateError> {
    let Some(bytes) = folder.read(FORMAT)? else {
        for name in [IDENTITY, BOOKS] {
            if folder.read(name)?.is_some() {
                let path = folder.path_of(FORMAT);
                return Err(StateError::damaged(&path, "missing beside an identity"));
            }
        }
        let line = format!("{FORMAT_MAGIC}{}\n", records::FORMAT);
        folder.write(FORMAT, line.as_bytes())?;
        return Ok(true);
    };
    let path = folder.path_of(FORMAT);
    let line = std::str::from_utf8(&bytes).unwrap_or_default();
    let number = line.strip_prefix(FORMAT_MAGIC).map(|n| n.trim().parse());
    match number {
        Some(Ok(records::FORMAT)) => Ok(false),
        Some(Ok(1u32..)) => Err(StateError::Newer(path)),
        _ => Err(StateError::damaged(&path, "not that of an edge")),
    }
}

fn read_books(folder: &Folder) -> Result<Books, StateError> {
    match folder.read(BOOKS)?.map(Zeroizing::new) {
        Some(bytes) => records::read_books(&bytes).map_err(|e| understood(folder, BOOKS, e)),
        None => Ok(Books::default()),
    }
}

fn open_identity(folder: &Folder, has_agents: bool) -> Result<Identity, StateError> {
    let of = |error| understood(folder, IDENTITY, error);
    match folder.read(IDENTITY)?.map(Zeroizing::new) {
        Some(bytes) => records::read_identity(&bytes).map_err(of),
        None if has_agents => Err(StateError::IdentityMissing(folder.path_of(IDENTITY))),
        None => {
            let seed = random().map_err(StateError::Random)?;
            let identity = Identity::from_seed(seed)
                .map_err(|e| StateError::damaged(&folder.path_of(IDENTITY), e.to_string()))?;
            let bytes = records::write_identity(&identity).map_err(of)?;
            folder.write(IDENTITY, &bytes)?;
            Ok(identity)
        }
    }
}

fn open_secret(folder: &Folder, configured: Option<Psk>) -> Result<SharedSecret, StateError> {
    if let Some(psk) = configured {
        return Ok(SharedSecret {
            psk,
            is_configured: true,
        });
    }
    let psk = match folder.read(SECRET)?.map(Zeroizing::new) {
        None => make_secret(folder)?,
        Some(bytes) => std::str::from_utf8(&bytes)
            .map_err(|_| "not UTF-8".to_owned())
            .and_then(|text| Psk::parse(text).map_err(|e| e.to_string()))
            .map_err(|problem| StateError::damaged(&folder.path_of(SECRET), problem))?,
    };
    Ok(SharedSecret {
        psk,
        is_configured: false,
    })
}

fn make_secret(folder: &Folder) -> Result<Psk, StateError> {
    let psk = Psk::from_random(random().map_err(StateError::Random)?);
    let line = Zeroizing::new(format!("{}\n", psk.expose()));
    folder.write(SECRET, line.as_bytes())?;
    Ok(psk)
}

#[cfg(test)]
mod tests;
