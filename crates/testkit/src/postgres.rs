//! A real PostgreSQL server and its client, psql.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::process::Process;
use crate::wait::until_true;

/// Where Debian keeps the server's programs, in a folder for each version.
const FOLDER: &str = "/usr/lib/postgresql";
/// Who runs a server that refuses to be root: `nobody`, of whom no file is.
const NOBODY: u32 = 65_534;

/// A running server with one database and one user, who needs no password.
pub struct Postgres {
    /// Where it listens.
    pub address: SocketAddr,
    process: Option<Process>,
    _folder: tempfile::TempDir,
}

/// A program of the newest version that is installed.
fn program(name: &str) -> PathBuf {
    let folders = std::fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let files = folders.map(|folder| folder.path().join("bin").join(name));
    let found = files.filter(|file| file.is_file()).max();
    found
        .unwrap_or_else(|| panic!("{name} of PostgreSQL is not installed: run `cargo xtask setup`"))
}

/// A command that runs as nobody where the tests run as root.
fn command(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(program(name));
    command.current_dir(folder).stdin(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

impl Postgres {
    /// Starts one on a port of the loopback, with data of its own.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, data) = (folder.path(), folder.path().join("data"));
        if rustix::process::geteuid().is_root() {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("a folder of nobody's own");
        }
        let mut make = command("initdb", path);
        make.args(["--no-sync", "--no-instructions", "--encoding=UTF8"])
            .args(["--locale=C", "--auth=trust", "--username=test", "--pgdata"])
            .arg(&data);
        let made = Process::run(make);
        assert!(made.status.success(), "{}", made.text());
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = probe.local_addr().expect("its address");
        drop(probe);
        let mut serve = command("postgres", path);
        serve.arg("-D").arg(&data).arg("-p");
        serve.arg(address.port().to_string());
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "max_connections=20",
            "shared_buffers=16MB",
        ] {
            serve.args(["-c", setting]);
        }
        let server = Self {
            address,
            process: Some(Process::spawn(serve)),
            _folder: folder,
        };
        until_true("PostgreSQL answers", || {
            Process::run(client(address, "select 1")).status.success()
        });
        server
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            // It takes its shared memory with it, which a kill would not.
            process.signal(Signal::QUIT);
            drop(process.ended());
        }
    }
}

fn psql(by: SocketAddr) -> Command {
    let mut command = Command::new(program("psql"));
    let (ip, port) = (by.ip(), by.port());
    let place = format!("host={ip} port={port} user=test dbname=postgres connect_timeout=20");
    command
        .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
        .args(["--set=ON_ERROR_STOP=1", "--dbname", &place]);
    command
}

/// The client with statements to run, by another address than the server's own
/// as well: the rows are what it says.
///
/// # Panics
/// When it is not installed.
#[must_use]
pub fn client(by: SocketAddr, statements: &str) -> Command {
    let mut command = psql(by);
    command.args(["--command", statements]).stdin(Stdio::null());
    command
}

/// The client for statements that are said to it line by line.
///
/// # Panics
/// When it is not installed.
#[must_use]
pub fn conversation(by: SocketAddr) -> Process {
    let mut command = psql(by);
    command.stdin(Stdio::piped());
    Process::spawn(command)
}
