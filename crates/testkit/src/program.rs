//! Adit's own binary as a process, for tests that kill it, signal it or read
//! what it prints. The test that has the binary says where it is.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{Ended, Process};

/// The binary, and a folder for the data of everything that it runs as.
pub struct Program {
    binary: PathBuf,
    folder: tempfile::TempDir,
}

/// A running edge.
pub struct EdgeProcess {
    /// The process.
    pub process: Process,
    /// Where visitors knock.
    pub http: SocketAddr,
    /// Where agents knock.
    pub link: SocketAddr,
    /// Where metrics are.
    pub api: SocketAddr,
}

impl EdgeProcess {
    /// HTTP, link and API door.
    #[must_use]
    pub fn doors(&self) -> [SocketAddr; 3] {
        [self.http, self.link, self.api]
    }
}

impl Program {
    /// The binary at a path, `env!("CARGO_BIN_EXE_adit")` in its own tests.
    ///
    /// # Panics
    /// When there is no temporary folder.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// A path in the folder of this program's data.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command with nothing of the outer environment that Adit would read.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("XDG_DATA_HOME", self.path("home"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ADIT_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it cannot be started or does not end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Ended {
        Process::run(self.command(arguments))
    }

    /// Runs a command that must succeed; its output.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn done(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert!(ended.status.success(), "{arguments:?}: {}", ended.text());
        ended.text()
    }

    /// Writes a file of this program's folder; its path.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file of the test");
        path.to_string_lossy().into_owned()
    }

    /// The configuration of an edge with these doors and more tables.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn server_file(&self, doors: [&str; 3], tables: &str) -> String {
        let [http, link, api] = doors;
        let data = self.path("edge");
        let text = format!(
            "[server]\ndomain = \"test\"\ndata = \"{}\"\n\
             [doors]\nhttp = \"{http}\"\nlink = \"{link}\"\napi = \"{api}\"\n{tables}\n",
            data.display()
        );
        self.file("server.toml", &text)
    }

    /// An edge on free ports, ready.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn edge(&self, tables: &str) -> EdgeProcess {
        let file = self.server_file(["127.0.0.1:0"; 3], tables);
        self.edge_of(&file, &[])
    }

    /// An edge of a configuration file, ready.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn edge_of(&self, file: &str, more: &[&str]) -> EdgeProcess {
        let mut arguments = vec!["server", "--config", file];
        arguments.extend(more);
        let process = Process::spawn(self.command(&arguments));
        let listening = |door: &str| {
            let begin = format!("listening {door} ");
            process.line(&begin, |line| line.strip_prefix(&begin)?.parse().ok())
        };
        let (http, link, api) = (listening("http"), listening("link"), listening("api"));
        process.line("that it is ready", |line| (line == "ready").then_some(()));
        EdgeProcess {
            process,
            http,
            link,
            api,
        }
    }

    /// An edge on the data of an earlier one, at the doors that it had.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn edge_at(&self, doors: [SocketAddr; 3], tables: &str) -> EdgeProcess {
        let [http, link, api] = doors.map(|door| door.to_string());
        self.edge_of(&self.server_file([&http, &link, &api], tables), &[])
    }

    /// The join string of the edge whose address is `link`; the configuration
    /// of a port 0 does not know it.
    ///
    /// # Panics
    /// When it cannot be had.
    #[must_use]
    pub fn join(&self, edge: &EdgeProcess) -> String {
        let file = self.path("server.toml");
        let public = edge.link.to_string();
        self.done(&[
            "server",
            "--config",
            path(&file),
            "--public",
            &public,
            "--print-join",
        ])
    }

    /// The PIN of the running edge.
    ///
    /// # Panics
    /// When it cannot be had.
    #[must_use]
    pub fn pin(&self) -> String {
        let file = self.path("server.toml");
        self.done(&["server", "--config", path(&file), "--print-pin"])
    }

    /// `adit http`, live under a name; the data of agent `who` is its own.
    ///
    /// # Panics
    /// When it does not become live.
    #[must_use]
    pub fn agent(&self, edge: &EdgeProcess, who: &str, name: &str, target: SocketAddr) -> Process {
        let data = self.path(who);
        let target = target.to_string();
        let mut command = self.command(&[
            "http",
            &target,
            "--name",
            name,
            "--data",
            path(&data),
            "--log-level",
            "debug",
        ]);
        command
            .env("ADIT_EDGE", self.join(edge))
            .env("ADIT_PIN", self.pin());
        let process = Process::spawn(command);
        let live = format!("live {name} ");
        process.line(&live, |line| line.starts_with(&live).then_some(()));
        process
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a temporary folder has a plain name")
}
