//! Where the peers are installed.

use std::path::{Path, PathBuf};

/// A program of the system.
///
/// # Panics
/// When it is not installed.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: run `cargo xtask setup`"))
}

/// The Python of the environment that `cargo xtask setup` makes below the
/// build folder.
///
/// # Panics
/// When it has not been made.
#[must_use]
pub fn python() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own program");
    let found = test
        .ancestors()
        .map(|folder| folder.join("peers/venv/bin/python"))
        .find(|file| file.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "there is no Python environment above {}: run `cargo xtask setup`",
            test.display()
        )
    })
}

/// A file of this repository, by its path below the root.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path);
    file.canonicalize()
        .unwrap_or_else(|e| panic!("{path} of this repository: {e}"))
}
