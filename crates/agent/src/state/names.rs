//! Random tunnel names, remembered per edge and target, so that a URL outlives
//! a restart. Two processes with the same target at once hold two names.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adit_model::{PublicKey, TunnelName};
use serde::{Deserialize, Serialize};

use super::{DataFolder, FORMAT, StateError, check_format, damaged, file};
use crate::random;

/// Names kept at most; the longest unused go first.
const MOST_NAMES: usize = 256;

/// A remembered name, this process's own for as long as it lives.
#[derive(Debug)]
pub struct HeldName {
    name: TunnelName,
    #[expect(dead_code, reason = "its lock is what holds the name")]
    file: File,
}

impl HeldName {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &TunnelName {
        &self.name
    }
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    format: u32,
    edge: String,
    target: String,
    /// Of several names of one target the lowest is taken first, so that the
    /// usual single process always has the same one.
    order: u32,
}

impl DataFolder {
    /// The remembered name of a target on an edge that no live process holds;
    /// a new one where there is none.
    ///
    /// # Errors
    /// See [`StateError`]. A damaged name file is passed over with a warning:
    /// it costs one remembered name and nothing else.
    pub fn hold_name(&self, edge: &PublicKey, target: &str) -> Result<HeldName, StateError> {
        let _lock = self.lock()?;
        let edge = edge.to_string();
        let paths = file::list(&self.names())?;
        let mut known = Vec::new();
        for path in &paths {
            match read_name(path) {
                Ok(entry) if entry.1.edge == edge && entry.1.target == target => known.push(entry),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "a remembered tunnel name is passed over"),
            }
        }
        known.sort_by_key(|(_, on_disk)| on_disk.order);
        let order = known
            .last()
            .map_or(0, |(_, last)| last.order.saturating_add(1));
        for (name, _) in known {
            if let Some(file) = try_hold(&self.names().join(name.as_str()))? {
                return Ok(HeldName { name, file });
            }
        }
        self.make_room(paths)?;
        self.new_name(&OnDisk {
            format: FORMAT,
            edge,
            target: target.to_owned(),
            order,
        })
    }

    fn new_name(&self, on_disk: &OnDisk) -> Result<HeldName, StateError> {
        let name = TunnelName::random(random::bytes().map_err(|_| StateError::Random)?);
        let path = self.names().join(name.as_str());
        file::write_json(&path, on_disk)?;
        let held = try_hold(&path)?;
        let file = held.ok_or_else(|| damaged(&path, "locked by another program"))?;
        Ok(HeldName { name, file })
    }

    /// Drops the names that were unused longest, never one that is held.
    fn make_room(&self, paths: Vec<PathBuf>) -> Result<(), StateError> {
        let too_many = (paths.len() + 1).saturating_sub(MOST_NAMES);
        if too_many == 0 {
            return Ok(());
        }
        let used = |path: &PathBuf| fs::metadata(path).and_then(|m| m.modified()).ok();
        let mut by_use: Vec<_> = paths.into_iter().map(|p| (used(&p), p)).collect();
        by_use.sort();
        let mut dropped = 0;
        for (_, path) in by_use {
            // What is not a name of ours is not ours to remove.
            if dropped < too_many && read_name(&path).is_ok() && try_hold(&path)?.is_some() {
                file::remove(&path)?;
                dropped += 1;
            }
        }
        Ok(())
    }
}

fn read_name(path: &Path) -> Result<(TunnelName, OnDisk), StateError> {
    let name = path
        .file_name()
        .and_then(|name| TunnelName::parse(name.to_str()?).ok())
        .ok_or_else(|| damaged(path, "not a tunnel name"))?;
    let text = file::read(path)?.ok_or_else(|| damaged(path, "gone"))?;
    let on_disk: OnDisk =
        serde_json::from_str(&text).map_err(|_| damaged(path, "not a remembered name"))?;
    check_format(path, on_disk.format)?;
    Ok((name, on_disk))
}

/// The locked file, `None` where another process holds it.
fn try_hold(path: &Path) -> Result<Option<File>, StateError> {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|source| file::read_error(path, source))?;
    match file.try_lock() {
        Ok(()) => {
            // When it was last used decides what is dropped first; a file
            // system that keeps no times costs only that order.
            drop(file.set_modified(SystemTime::now()));
            Ok(Some(file))
        }
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(file::read_error(path, source)),
    }
}
