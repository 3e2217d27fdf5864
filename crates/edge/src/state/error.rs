//! What can be wrong with a data folder, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use adit_model::Code;
use rustix::io::Errno;

/// Why the data folder cannot be used. Each says what, where, what to do.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The way to the folder is blocked by something that is no folder.
    #[error("{} is not a folder: name another one as data", .0.display())]
    NotAFolder(PathBuf),
    /// Rights are missing.
    #[error(
        "no permission for {}: run this as the user that owns it, or give it to this user",
        .0.display()
    )]
    Forbidden(PathBuf),
    /// Other users may replace the files in it.
    #[error(
        "other users can write to {path} (mode {mode:04o}): run chmod 700 {path}",
        path = path.display()
    )]
    Writable {
        /// The folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Other users can read a file that holds secrets.
    #[error(
        "other users can read {path} (mode {mode:04o}): run chmod 600 {path}, and rotate the \
         secret if someone may have read it",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another process holds the lock.
    #[error(
        "another process uses the data folder {}: stop it, or give this one a folder of its own",
        .0.display()
    )]
    InUse(PathBuf),
    /// No space, or the quota is used up.
    #[error("the disk is full: {} could not be written and is as it was; free some space", .0.display())]
    Full(PathBuf),
    /// A file that this version does not understand.
    #[error(
        "{path} is damaged ({problem}); it is left as it is: restore it from a backup, or move it \
         away to go on without it",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// A file of a later version.
    #[error(
        "{} was written by a newer version: update this program, or name another data folder",
        .0.display()
    )]
    Newer(PathBuf),
    /// The identity is gone while agents know it.
    #[error(
        "{} is missing, but agents are enrolled that know the edge by it: restore it from a \
         backup, or move the whole data folder away to start anew",
        .0.display()
    )]
    IdentityMissing(PathBuf),
    /// The secret stands in the configuration; only there it can be changed.
    #[error("the shared secret stands in the configuration: change it there and restart the edge")]
    SecretIsConfigured,
    /// Whatever else the system says.
    #[error("{} cannot be used: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Nothing secret can be made.
    #[error("the system gives no random bytes: {0}")]
    Random(io::Error),
}

impl StateError {
    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotAFolder(_) | Self::Io { .. } | Self::Newer(_) => Code::DATA_UNREADABLE,
            Self::Forbidden(_) => Code::DATA_FORBIDDEN,
            Self::Writable { .. } | Self::Exposed { .. } => Code::DATA_EXPOSED,
            Self::InUse(_) => Code::DATA_IN_USE,
            Self::Full(_) => Code::DISK_FULL,
            Self::Damaged { .. } | Self::IdentityMissing(_) => Code::DATA_DAMAGED,
            Self::SecretIsConfigured => Code::CONFIG_CONFLICT,
            Self::Random(_) => Code::RUNTIME_FAILED,
        }
    }

    /// The error of a system call on `path`.
    pub(crate) fn of(path: &Path, source: impl Into<io::Error>) -> Self {
        let (source, path) = (source.into(), path.to_owned());
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full(path),
            Some(Errno::ACCESS | Errno::PERM) => Self::Forbidden(path),
            Some(Errno::NOTDIR | Errno::EXIST) => Self::NotAFolder(path),
            _ => Self::Io { path, source },
        }
    }

    pub(crate) fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_where_and_what_to_do() {
        let path = Path::new("/data/agents.json");
        let of = |errno: Errno| StateError::of(path, errno).to_string();
        assert_eq!(
            of(Errno::NOSPC),
            "the disk is full: /data/agents.json could not be written and is as it was; free some space"
        );
        assert!(of(Errno::ACCESS).contains("run this as the user that owns it"));
        assert!(of(Errno::NOTDIR).contains("name another one"));
        assert!(of(Errno::ROFS).contains("Read-only"), "{}", of(Errno::ROFS));
        let exposed = StateError::Exposed {
            path: path.to_owned(),
            mode: 0o644,
        };
        assert!(
            exposed
                .to_string()
                .contains("(mode 0644): run chmod 600 /data/agents.json")
        );
    }
}
