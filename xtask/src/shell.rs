//! Where the repository is, and how programs are run in it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The repository and its build folder.
pub(crate) struct Place {
    /// The folder with the root manifest.
    pub(crate) root: PathBuf,
    /// Where cargo builds; installed tools lie in `tools` below it, peers of
    /// the tests in `peers`.
    pub(crate) target: PathBuf,
}

impl Place {
    /// Finds the repository that this program was built from.
    pub(crate) fn find() -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .ok_or("xtask does not lie inside a repository")?
            .to_path_buf();
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |set| root.join(set));
        Ok(Self { root, target })
    }

    /// The folder of cargo tools that are not part of the toolchain.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The Python environment that the tests' peers run in.
    pub(crate) fn venv(&self) -> PathBuf {
        self.target.join("peers").join("venv")
    }
}

/// One program to run; its output goes to ours unless it is asked for.
pub(crate) struct Run {
    command: Command,
    shown: String,
}

impl Run {
    /// A program by name or path, in the repository's root.
    pub(crate) fn program(place: &Place, program: impl AsRef<OsStr>) -> Self {
        let shown = program.as_ref().to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.current_dir(&place.root).stdin(Stdio::null());
        Self { command, shown }
    }

    /// The cargo that runs us, with arguments.
    pub(crate) fn cargo(place: &Place, arguments: &[&str]) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut run = Self::program(place, cargo);
        "cargo".clone_into(&mut run.shown);
        run.args(arguments)
    }

    /// More arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        for argument in arguments {
            self.shown.push(' ');
            self.shown.push_str(&argument.as_ref().to_string_lossy());
            self.command.arg(argument);
        }
        self
    }

    /// One more variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it and asks for success.
    pub(crate) fn done(mut self) -> Result<(), String> {
        let status = self.command.status().map_err(|e| self.cannot(&e))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("`{}` ended with {status}", self.shown))
        }
    }

    /// Runs it with its standard output caught; what it says on standard
    /// error is dropped.
    pub(crate) fn output(mut self) -> Result<String, String> {
        let output = self
            .command
            .stderr(Stdio::null())
            .output()
            .map_err(|e| self.cannot(&e))?;
        if !output.status.success() {
            return Err(format!("`{}` ended with {}", self.shown, output.status));
        }
        String::from_utf8(output.stdout).map_err(|_| format!("`{}` wrote no UTF-8", self.shown))
    }

    /// Runs it, shows its standard output and hands each line of it to
    /// `look`; answers whether it succeeded.
    pub(crate) fn lines(mut self, mut look: impl FnMut(&str)) -> Result<bool, String> {
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| self.cannot(&e))?;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).split(b'\n') {
                let line = line.map_err(|e| self.cannot(&e))?;
                let line = String::from_utf8_lossy(&line);
                println!("{line}");
                look(&line);
            }
        }
        let status = child.wait().map_err(|e| self.cannot(&e))?;
        Ok(status.success())
    }

    fn cannot(&self, error: &std::io::Error) -> String {
        format!("`{}` cannot be run: {error}", self.shown)
    }
}

/// Whether a program of this name lies in `PATH` or where Debian keeps the
/// administrator's programs and those of each version of PostgreSQL.
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let databases = std::fs::read_dir("/usr/lib/postgresql");
    let databases = databases.into_iter().flatten().flatten();
    std::env::split_paths(&path)
        .chain(system)
        .chain(databases.map(|version| version.path().join("bin")))
        .any(|folder| folder.join(name).is_file())
}
