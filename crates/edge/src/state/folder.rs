//! One locked folder whose files are replaced whole.
//!
//! Everything goes through the folder's descriptor, so that it stays the same
//! folder when its path is moved. Invariants: a file is written beside, synced
//! and renamed, so that it is the old one or the new one and never a part; its
//! mode is 0600; one process at a time holds the folder.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use adit_link::owner;
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::error::StateError;

/// Most bytes of a file that is read whole.
const MAX_FILE: u64 = 64 << 20;
const PRIVATE: Mode = Mode::from_raw_mode(0o600);
/// Bits that let others read or write.
const OTHERS: u32 = 0o077;
/// Bits that let others write.
const OTHERS_WRITE: u32 = 0o022;

/// A data folder that this process holds.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    folder: OwnedFd,
    /// Held as long as it is open.
    _lock: File,
}

impl Folder {
    /// Creates the folder (mode 0700) if there is none, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| StateError::of(path, error))?;
        let folder = open_folder(path)?;
        let mode = mode_of(&folder).map_err(|e| StateError::of(path, e))?;
        if mode & OTHERS_WRITE != 0 {
            let path = path.to_owned();
            return Err(StateError::Writable { path, mode });
        }
        let lock = lock(path, folder.as_fd())?;
        Ok(Self {
            path: path.to_owned(),
            folder,
            _lock: lock,
        })
    }

    /// The path of a file, for messages.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// See [`owner::short_path`]; valid while this value lives.
    pub(crate) fn short_path_of(&self, name: &str) -> PathBuf {
        owner::short_path(self.folder.as_fd(), &self.path, name)
    }

    /// The whole file; `None` when there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path_of(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match fs::openat(&self.folder, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(StateError::damaged(&path, "a symbolic link")),
            Err(error) => return Err(StateError::of(&path, error)),
        };
        let about = file.metadata().map_err(|e| StateError::of(&path, e))?;
        if !about.is_file() {
            return Err(StateError::damaged(&path, "not a file"));
        }
        let mode = about.permissions().mode() & 0o7777;
        if mode & OTHERS != 0 {
            return Err(StateError::Exposed { path, mode });
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| StateError::of(&path, e))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(StateError::damaged(&path, "larger than any such file"));
        }
        Ok(Some(bytes))
    }

    /// Replaces the file: all of `bytes`, or the old file stays.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let beside = format!(".{name}.new");
        let written = self
            .write_beside(&beside, bytes)
            .and_then(|()| Ok(fs::renameat(&self.folder, &beside, &self.folder, name)?))
            .and_then(|()| Ok(fs::fsync(&self.folder)?));
        written.map_err(|error| {
            // What could not be written must not take the space either; when
            // even that fails there is nothing more to say than the first error.
            let _ = fs::unlinkat(&self.folder, &beside, AtFlags::empty());
            StateError::of(&self.path_of(name), error)
        })
    }

    fn write_beside(&self, beside: &str, bytes: &[u8]) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(&self.folder, beside, flags, PRIVATE)?);
        // One that a crash left behind keeps its mode.
        fs::fchmod(&file, PRIVATE)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Opens a file to append to, creating it.
    pub(crate) fn open_append(&self, name: &str) -> Result<File, StateError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.folder, name, flags, PRIVATE)
            .map_err(|error| StateError::of(&self.path_of(name), error))?;
        Ok(File::from(file))
    }

    /// Renames a file within the folder.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), StateError> {
        fs::renameat(&self.folder, from, &self.folder, to)
            .map_err(|error| StateError::of(&self.path_of(from), error))
    }

    /// Removes a file; that there is none is fine.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StateError> {
        match fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(StateError::of(&self.path_of(name), error)),
        }
    }
}

/// Opens an existing folder.
pub(crate) fn open_folder(path: &Path) -> Result<OwnedFd, StateError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).map_err(|error| StateError::of(path, error))
}

fn mode_of(folder: &OwnedFd) -> io::Result<u32> {
    Ok(fs::fstat(folder)?.st_mode & 0o7777)
}

fn lock(path: &Path, folder: BorrowedFd<'_>) -> Result<File, StateError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let at = path.join("lock");
    let file =
        fs::openat(folder, "lock", flags, PRIVATE).map_err(|error| StateError::of(&at, error))?;
    match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(File::from(file)),
        Err(Errno::WOULDBLOCK) => Err(StateError::InUse(path.to_owned())),
        Err(error) => Err(StateError::of(&at, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).unwrap();
    }

    #[test]
    fn folder_and_files_are_private_and_survive() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("a/b");
        let folder = Folder::open(&path).unwrap();
        assert_eq!(folder.read("x").unwrap(), None);
        folder.write("x", b"one").unwrap();
        folder.write("x", b"two").unwrap();
        assert_eq!(folder.read("x").unwrap().unwrap(), b"two");
        assert_eq!((mode(&path), mode(&path.join("x"))), (0o700, 0o600));
        let names: Vec<_> = std::fs::read_dir(&path)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(!names.iter().any(|n| n.ends_with(".new")), "{names:?}");
    }

    #[test]
    fn one_process_at_a_time() {
        let top = tempfile::tempdir().unwrap();
        let first = Folder::open(top.path()).unwrap();
        assert!(matches!(
            Folder::open(top.path()),
            Err(StateError::InUse(_))
        ));
        drop(first);
        assert!(Folder::open(top.path()).is_ok());
    }

    #[test]
    fn wrong_modes_and_wrong_kinds_are_named() {
        let top = tempfile::tempdir().unwrap();
        let folder = Folder::open(top.path()).unwrap();
        folder.write("x", b"secret").unwrap();
        set_mode(&top.path().join("x"), 0o640);
        let error = folder.read("x").unwrap_err();
        assert!(matches!(error, StateError::Exposed { mode: 0o640, .. }));
        symlink("/etc/hostname", top.path().join("link")).unwrap();
        let error = folder.read("link").unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{error}");
        drop(folder);
        set_mode(top.path(), 0o770);
        let error = Folder::open(top.path()).unwrap_err();
        assert!(matches!(error, StateError::Writable { mode: 0o770, .. }));
        let file = top.path().join("x");
        for blocked in [file.clone(), file.join("below")] {
            let error = Folder::open(&blocked).unwrap_err();
            assert!(matches!(error, StateError::NotAFolder(_)), "{error}");
        }
    }

    #[test]
    fn a_short_path_leads_to_the_same_file() {
        let top = tempfile::tempdir().unwrap();
        let long = top.path().join("x".repeat(100)).join("y".repeat(100));
        let folder = Folder::open(&long).unwrap();
        folder.write("f", b"here").unwrap();
        let short = folder.short_path_of("f");
        assert!(short.as_os_str().len() < 100);
        assert_eq!(std::fs::read(short).unwrap(), b"here");
    }

    const CHILD: &str = "ADIT_TEST_FOLDER";

    /// Runs in a child process whose files may have 4 KiB at most.
    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        if let Some(path) = std::env::var_os(CHILD) {
            let folder = Folder::open(Path::new(&path)).unwrap();
            let error = folder.write("x", &[b'n'; 100_000]).unwrap_err();
            assert!(matches!(error, StateError::Io { .. }), "{error}");
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let folder = Folder::open(top.path()).unwrap();
        folder.write("x", b"old").unwrap();
        drop(folder);
        let name = "state::folder::tests::a_write_that_fails_leaves_the_old_file";
        let status = Command::new("sh")
            .args([
                "-c",
                "trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact \"$1\"",
            ])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(CHILD, top.path())
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
        assert!(String::from_utf8_lossy(&status.stdout).contains("1 passed"));
        let folder = Folder::open(top.path()).unwrap();
        assert_eq!(folder.read("x").unwrap().unwrap(), b"old");
        assert!(!top.path().join(".x.new").exists());
    }
}
