//! Whole files: read within a bound, written beside and renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use zeroize::Zeroizing;

use super::{StateError, damaged};
use crate::random;

/// More than any file here ever holds.
const MAX_FILE: u64 = 64 * 1024;
const TEMPORARY: &str = ".tmp";

pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// A lock between processes around one change; dropped with its file.
pub(super) struct Lock(#[expect(dead_code, reason = "held, never read")] File);

impl Lock {
    pub(super) fn take(path: &Path) -> Result<Self, StateError> {
        let open = || {
            let file = private().create(true).truncate(false).open(path)?;
            file.lock()?;
            Ok(file)
        };
        open().map(Self).map_err(|source| write_error(path, source))
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn write_error(path: &Path, source: io::Error) -> StateError {
    StateError::Write {
        path: path.to_owned(),
        source,
    }
}

/// The text of a file, `None` where there is none.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<String>>, StateError> {
    match File::open(path) {
        Ok(mut file) => read_open(path, &mut file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(read_error(path, source)),
    }
}

/// Like [`read`], for a file that others must not be able to read.
pub(super) fn read_secret(path: &Path) -> Result<Option<Zeroizing<String>>, StateError> {
    let text = read(path)?;
    #[cfg(unix)]
    if text.is_some() {
        use std::os::unix::fs::PermissionsExt;
        let data = fs::metadata(path).map_err(|source| read_error(path, source))?;
        if data.permissions().mode() & 0o077 != 0 {
            return Err(StateError::Exposed {
                path: path.to_owned(),
            });
        }
    }
    Ok(text)
}

pub(super) fn read_open(path: &Path, file: &mut File) -> Result<Zeroizing<String>, StateError> {
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| read_error(path, source))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(damaged(path, "too long"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged(path, "not text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

pub(super) fn read_error(path: &Path, source: io::Error) -> StateError {
    StateError::Read {
        path: path.to_owned(),
        source,
    }
}

/// Replaces a file as a whole. Call it under the folder's [`Lock`]: what an
/// earlier writer left unfinished beside the file is cleared away.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let staged = Staged::write(path, bytes)?;
    staged.publish(path)
}

/// Like [`write()`], as JSON for people to read.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StateError> {
    let mut text = Zeroizing::new(Vec::new());
    serde_json::to_writer_pretty(&mut *text, value)
        .map_err(|error| write_error(path, error.into()))?;
    text.push(b'\n');
    write(path, &text)
}

/// A file written and synced beside its final place.
pub(super) struct Staged {
    beside: Option<PathBuf>,
}

impl Staged {
    pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<Self, StateError> {
        clear_leftovers(path);
        let tag = random::bytes::<8>().map_err(|_| StateError::Random)?;
        let tag = data_encoding::HEXLOWER.encode(&tag);
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{tag}{TEMPORARY}"));
        let beside = path.with_file_name(name);
        let fail = |source| write_error(path, source);
        let mut file = private().create_new(true).open(&beside).map_err(fail)?;
        let staged = Self {
            beside: Some(beside),
        };
        file.write_all(bytes).map_err(fail)?;
        file.sync_all().map_err(fail)?;
        Ok(staged)
    }

    pub(super) fn publish(mut self, path: &Path) -> Result<(), StateError> {
        let Some(beside) = self.beside.take() else {
            return Ok(());
        };
        if let Err(source) = fs::rename(&beside, path) {
            self.beside = Some(beside);
            return Err(write_error(path, source));
        }
        sync_folder(path).map_err(|source| write_error(path, source))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // A full disk is the usual cause: give its room back.
            drop(fs::remove_file(beside));
        }
    }
}

/// Removes a file; `false` where there was none.
pub(super) fn remove(path: &Path) -> Result<bool, StateError> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path)
            .map(|()| true)
            .map_err(|source| write_error(path, source)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(write_error(path, source)),
    }
}

/// Makes a rename or a removal last.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Files in `folder` that are complete; a folder that is absent holds none.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, StateError> {
    let fail = |source| StateError::Folder {
        path: folder.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if !is_leftover(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn is_leftover(path: &Path) -> bool {
    path.to_string_lossy().ends_with(TEMPORARY)
}

fn clear_leftovers(path: &Path) {
    let Some(entries) = path.parent().and_then(|folder| fs::read_dir(folder).ok()) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if is_leftover(&path) {
            // Another try comes with the next write.
            drop(fs::remove_file(path));
        }
    }
}
