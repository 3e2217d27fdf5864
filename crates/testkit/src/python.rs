//! Peers written in Python, from the folder `python` beside this crate.
//!
//! A script that listens prints `listening on ADDRESS` when it does.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::peers::{python, repository};
use crate::process::Process;

/// A command that runs a script of this repository with Python.
///
/// # Panics
/// When Python's environment or the script is missing.
#[must_use]
pub fn script(path: &str) -> Command {
    let mut command = Command::new(python());
    command
        .arg("-u")
        .arg(repository(path))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    command
}

/// A running script that listens.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it says.
    pub process: Process,
}

impl Origin {
    /// Starts one of the scripts in `python` beside this crate.
    ///
    /// # Panics
    /// When it does not say that it listens.
    #[must_use]
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = script(&format!("crates/testkit/python/{name}.py"));
        command.args(arguments);
        let process = Process::spawn(command);
        let address = process.line("where it listens", |line| {
            line.strip_prefix("listening on ")?.parse().ok()
        });
        Self { address, process }
    }
}
