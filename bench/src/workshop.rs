//! The folder of one run: filled-in configurations, logs, keys.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::BenchError;

/// A folder that is removed with the run unless it was asked to stay.
#[derive(Debug)]
pub(crate) struct Workshop {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl Workshop {
    /// A temporary folder, or the given one.
    pub(crate) fn open(keep: Option<&Path>) -> Result<Self, BenchError> {
        let what = || BenchError::io("make the folder of the run");
        let (path, temporary) = if let Some(keep) = keep {
            fs::create_dir_all(keep).map_err(what())?;
            (keep.canonicalize().map_err(what())?, None)
        } else {
            let made = tempfile::Builder::new()
                .prefix("adit-bench-")
                .tempdir()
                .map_err(what())?;
            (made.path().to_path_buf(), Some(made))
        };
        // nginx started as root reads its files as another user.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(what())?;
        Ok(Self {
            path,
            _temporary: temporary,
        })
    }

    /// A folder of that name within, made when absent.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, BenchError> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).map_err(BenchError::io(format!("make {}", path.display())))?;
        Ok(path)
    }
}

/// Writes `template` to `dir/name` with each `{key}` replaced by its value.
pub(crate) fn fill(
    dir: &Path,
    name: &str,
    template: &str,
    values: &[(&str, &dyn std::fmt::Display)],
) -> Result<PathBuf, BenchError> {
    let text = values
        .iter()
        .fold(template.to_owned(), |text, (key, value)| {
            text.replace(&format!("{{{key}}}"), &value.to_string())
        });
    let path = dir.join(name);
    fs::write(&path, text).map_err(BenchError::io(format!("write {}", path.display())))?;
    Ok(path)
}

/// A loopback address whose port was free a moment ago.
pub(crate) fn free() -> Result<SocketAddr, BenchError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(BenchError::io("find a free port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_each_place() {
        let dir = TempDir::new().expect("a folder");
        let path = fill(
            dir.path(),
            "x",
            "a {one} {two} {one}",
            &[("one", &1), ("two", &"b")],
        )
        .expect("written");
        assert_eq!(fs::read_to_string(path).expect("read"), "a 1 b 1");
    }
}
