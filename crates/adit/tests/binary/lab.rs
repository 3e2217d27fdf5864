//! A folder in which the program runs: edges and agents as processes, with
//! stdout and the log apart.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use adit_testkit::counters::metric;
use adit_testkit::peers::program;
use adit_testkit::process::{Ended, Process};
use adit_testkit::raw::Socket;

/// What a command that ended has said.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its exit status.
    pub(crate) code: i32,
    /// Its stdout.
    pub(crate) out: String,
    /// Its stderr.
    pub(crate) err: String,
}

impl Said {
    /// Its stdout, after a success.
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// That it failed with this status and code, in one sentence that names
    /// these words, with the remedy below it.
    pub(crate) fn refused(&self, status: i32, code: &str, words: &[&str]) {
        assert_eq!(self.code, status, "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        let start = format!("error {code}: ");
        let at = self.err.lines().position(|line| line.starts_with(&start));
        let at = at.unwrap_or_else(|| panic!("no line `{start}` in {self:?}"));
        let lines: Vec<&str> = self.err.lines().skip(at).collect();
        for word in words {
            assert!(lines[0].contains(word), "no `{word}` in {self:?}");
        }
        assert!(
            lines.len() > 1 && lines[1].starts_with("    "),
            "it says what to do: {self:?}"
        );
    }
}

/// The folder; removed at the end.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
    started: AtomicUsize,
}

/// A long-running command: its process has stdout, the log is a file.
pub(crate) struct Running {
    /// The process with its stdout.
    pub(crate) process: Process,
    log: Log,
}

/// The log of a process; a failing test shows it.
struct Log(PathBuf);

impl Log {
    fn text(&self) -> String {
        fs::read_to_string(&self.0).unwrap_or_default()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.0.display(), self.text());
        }
    }
}

impl Running {
    /// Its stderr so far.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Asks for an orderly end and waits for it; its exit status, and stdout.
    pub(crate) fn stop(self) -> (Option<i32>, Vec<String>) {
        self.process.terminate();
        let Ended { status, lines } = self.process.ended();
        (status.code(), lines)
    }

    /// Waits for its own end: what it said.
    pub(crate) fn ended(self) -> Said {
        let Ended { status, lines } = self.process.ended();
        Said {
            code: status.code().unwrap_or(-1),
            out: lines.join("\n"),
            err: self.log.text(),
        }
    }

    /// Waits for a line of stdout that begins so; its rest.
    pub(crate) fn line(&self, begin: &str) -> String {
        self.process.line(begin, |line| {
            line.strip_prefix(begin).map(|rest| rest.trim().to_owned())
        })
    }

    /// Waits for a line of the log with this text.
    pub(crate) fn logged(&self, text: &str) -> String {
        adit_testkit::wait::until(&format!("`{text}` is logged"), || {
            let log = self.log();
            log.lines()
                .find(|line| line.contains(text))
                .map(str::to_owned)
        })
    }

    /// Waits until a tunnel is live; its URL.
    pub(crate) fn live(&self, name: &str) -> String {
        let rest = self.line(&format!("live {name} "));
        rest.split(' ').next().unwrap().to_owned()
    }
}

/// A running edge.
pub(crate) struct Edge {
    /// Its process and log.
    pub(crate) running: Running,
    /// Where visitors knock.
    pub(crate) http: SocketAddr,
    /// Where agents knock.
    pub(crate) link: SocketAddr,
    /// Where metrics are.
    pub(crate) api: SocketAddr,
    file: String,
}

impl Edge {
    /// Its doors, to be had again after a restart.
    pub(crate) fn doors(&self) -> [String; 3] {
        [self.http, self.link, self.api].map(|door| door.to_string())
    }

    /// `["agents", "list"]` and such, at this edge.
    pub(crate) fn ask(&self, lab: &Lab, arguments: &[&str]) -> Said {
        lab.run(&[arguments, &["--config", &self.file]].concat())
    }

    /// Its join string.
    pub(crate) fn join(&self, lab: &Lab) -> String {
        let said = self.ask(lab, &["server", "--print-join"]);
        said.done().trim().to_owned()
    }

    /// Its PIN of now.
    pub(crate) fn pin(&self, lab: &Lab) -> String {
        let said = self.ask(lab, &["server", "--print-pin"]);
        said.done().trim().to_owned()
    }

    /// GET of a path of a host: the status, and the whole answer.
    pub(crate) fn get(&self, host: &str, path: &str) -> (u16, String) {
        get(self.http, host, path)
    }

    /// A value of a metric, by name and labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, page) = get(self.api, &self.api.to_string(), "/metrics");
        metric(&page, name)
    }
}

/// GET at a door: the status and the whole answer; 0 when there is none.
pub(crate) fn get(door: SocketAddr, host: &str, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let (answer, _) = Socket::send_to(door, request).rest();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.unwrap_or(0), text)
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            started: AtomicUsize::new(0),
        }
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub(crate) fn text_of(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file; its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.text_of(name)
    }

    fn clean(&self, command: &mut Command) {
        command
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
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, &[])
    }

    /// The same with variables of the environment.
    pub(crate) fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
        self.start(arguments, variables).ended()
    }

    /// Starts a command.
    pub(crate) fn start(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
        self.start_in("exec \"$0\" \"$@\"", arguments, variables)
    }

    /// The same by a line of shell, which has the program and its arguments
    /// as `"$0" "$@"`.
    pub(crate) fn start_in(
        &self,
        shell: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Running {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let log = self.path(&format!("log-{number}"));
        fs::write(&log, "").unwrap();
        let mut command = Command::new(program("sh"));
        command
            .args(["-c", &format!("exec 2>>\"$LOG_OF_TEST\"; {shell}")])
            .arg(env!("CARGO_BIN_EXE_adit"))
            .args(arguments);
        self.clean(&mut command);
        command
            .env("LOG_OF_TEST", &log)
            .envs(variables.iter().copied());
        Running {
            process: Process::spawn(command),
            log: Log(log),
        }
    }

    /// The configuration of an edge; `tables` may begin with more keys of
    /// `[server]`.
    pub(crate) fn server_file(&self, doors: &[String; 3], tables: &str) -> String {
        let [http, link, api] = doors;
        let text = format!(
            "[doors]\nhttp = \"{http}\"\nlink = \"{link}\"\napi = \"{api}\"\n\
             [server]\ndomain = \"test\"\ndata = \"edge\"\nworkers = 2\n{tables}\n"
        );
        self.file("server.toml", &text)
    }

    /// An edge on free ports, ready.
    pub(crate) fn edge(&self, tables: &str) -> Edge {
        self.edge_at(&["127.0.0.1:0"; 3].map(str::to_owned), tables)
    }

    /// An edge on free ports for another domain than `test`.
    pub(crate) fn edge_under(&self, domain: &str, tables: &str) -> Edge {
        let doors = ["127.0.0.1:0"; 3].map(str::to_owned);
        self.edge_with(&doors, tables, &[("ADIT_SERVER_DOMAIN", domain)])
    }

    /// An edge at these doors, on the data of an earlier one if there was one.
    pub(crate) fn edge_at(&self, doors: &[String; 3], tables: &str) -> Edge {
        self.edge_with(doors, tables, &[])
    }

    /// The same with variables of the environment.
    pub(crate) fn edge_with(
        &self,
        doors: &[String; 3],
        tables: &str,
        variables: &[(&str, &str)],
    ) -> Edge {
        let file = self.server_file(doors, tables);
        let running = self.start(&["server", "--config", &file], variables);
        let door = |name: &str| running.line(&format!("listening {name} ")).parse().unwrap();
        let (http, link, api) = (door("http"), door("link"), door("api"));
        running.line("ready");
        Edge {
            running,
            http,
            link,
            api,
            file,
        }
    }

    /// Starts `adit http`, admitted by join string and PIN of the edge; the
    /// data of agent `who` is its own.
    pub(crate) fn agent(&self, edge: &Edge, who: &str, more: &[&str]) -> Running {
        let (join, pin) = (edge.join(self), edge.pin(self));
        self.agent_with(who, more, &[("ADIT_EDGE", &join), ("ADIT_PIN", &pin)])
    }

    /// Makes `who` an agent of the edge, so that it needs nothing else.
    pub(crate) fn join(&self, edge: &Edge, who: &str) {
        let (join, pin, data) = (edge.join(self), edge.pin(self), self.text_of(who));
        let variables = [("ADIT_EDGE", join.as_str()), ("ADIT_PIN", pin.as_str())];
        self.run_with(&["join", "--data", &data], &variables).done();
    }

    /// Starts `adit http` with these variables and nothing else.
    pub(crate) fn agent_with(
        &self,
        who: &str,
        more: &[&str],
        variables: &[(&str, &str)],
    ) -> Running {
        let data = self.text_of(who);
        self.start(&[&["http", "--data", &data], more].concat(), variables)
    }
}

/// How a line of shell runs a command in namespaces of its own: root has the
/// right to them, others get it in a user namespace (which root has not where
/// its root folder was changed).
pub(crate) fn own() -> String {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let rights = if root { "" } else { " --map-root-user" };
    format!("{}{rights}", program("unshare").display())
}

/// The files below a folder, sockets left out.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    found
}
