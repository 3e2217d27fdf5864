//! Where the programs are: on PATH, in `target/peers`, or installed there.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::error::BenchError;

/// Folders of system programs that a user's PATH may lack.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Finds a program of the system, or says how to get it.
pub(crate) fn system(program: &'static str, package: &str) -> Result<PathBuf, BenchError> {
    search(program, &[]).ok_or_else(|| BenchError::Missing {
        program,
        how: format!("install the system package {package}"),
    })
}

/// Finds a peer that a package registry has, installing it into `target/peers`
/// where allowed. `how` is what stands after `cargo install`.
pub(crate) async fn peer(
    program: &'static str,
    how: &[&str],
    install: bool,
) -> Result<PathBuf, BenchError> {
    let root = target_folder().join("peers");
    let bin = root.join("bin");
    if let Some(found) = search(program, std::slice::from_ref(&bin)) {
        return Ok(found);
    }
    let line = format!("cargo install --root {} {}", root.display(), how.join(" "));
    if !install {
        return Err(BenchError::Missing { program, how: line });
    }
    eprintln!("bench: {line}");
    let done = cargo()
        .arg("install")
        .arg("--root")
        .arg(&root)
        .args(how)
        .env("CARGO_TARGET_DIR", root.join("build"))
        .stdin(Stdio::null())
        .status()
        .await
        .map_err(BenchError::io("run cargo install"))?;
    search(program, &[bin])
        .filter(|_| done.success())
        .ok_or_else(|| BenchError::Missing {
            program,
            how: format!("`{line}` failed"),
        })
}

/// The adit program: the given one, or built from this workspace.
pub(crate) async fn adit(given: Option<&Path>) -> Result<PathBuf, BenchError> {
    if let Some(path) = given {
        return path
            .canonicalize()
            .map_err(BenchError::io(format!("find {}", path.display())));
    }
    let done = cargo()
        .args(["build", "--release", "--quiet", "--package", "adit"])
        .stdin(Stdio::null())
        .status()
        .await
        .map_err(BenchError::io("run cargo build"))?;
    let path = target_folder().join("release").join("adit");
    if done.success() && path.is_file() {
        return Ok(path);
    }
    Err(BenchError::Missing {
        program: "adit",
        how: "`cargo build --release -p adit` failed".into(),
    })
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The workspace's target folder: two levels above this program, wherever
/// cargo was told to put it.
fn target_folder() -> PathBuf {
    env::current_exe()
        .ok()
        .and_then(|exe| exe.parent()?.parent().map(Path::to_path_buf))
        .unwrap_or_else(|| PathBuf::from("target"))
}

fn search(program: &str, more: &[PathBuf]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    more.iter()
        .cloned()
        .chain(env::split_paths(&path))
        .chain(SYSTEM.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}
