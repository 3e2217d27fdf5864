//! Programs run beside a test: what they said line by line, signals, and their
//! end together with the test's.

use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::wait::{DEADLINE, until};

/// A running program; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    open: usize,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(self: Arc<Self>, pipe: impl Read) {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.lock().all.push(line);
            self.changed.notify_all();
        }
        self.lock().open -= 1;
        self.changed.notify_all();
    }
}

/// What a program that has ended left behind.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Every line of both of its outputs, in the order they came.
    pub lines: Vec<String>,
}

impl Ended {
    /// All lines as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }
}

impl Process {
    /// Starts a prepared command with both outputs caught.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(mut command: Command) -> Self {
        let program = Path::new(command.get_program());
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{name} cannot be started: {e}"));
        let output = Arc::new(Output::default());
        output.lock().open = 2;
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (one, two) = (Arc::clone(&output), Arc::clone(&output));
        let readers = vec![
            std::thread::spawn(move || one.collect(stdout)),
            std::thread::spawn(move || two.collect(stderr)),
        ];
        Self {
            name,
            child,
            output,
            readers,
        }
    }

    /// Starts a program with arguments and nothing on its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start<S: AsRef<OsStr>>(program: &Path, arguments: &[S]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        Self::spawn(command)
    }

    /// Runs a prepared command to its end.
    ///
    /// # Panics
    /// When it cannot be started, or does not end in time.
    #[must_use]
    pub fn run(command: Command) -> Ended {
        Self::spawn(command).ended()
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().all.clone()
    }

    /// Writes to its standard input, which the command must have piped.
    ///
    /// # Panics
    /// When it takes no input.
    pub fn say(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("its input is piped");
        input
            .write_all(text.as_bytes())
            .and_then(|()| input.flush())
            .unwrap_or_else(|e| panic!("{} takes no input: {e}", self.name));
    }

    /// Waits for a line for which `pick` has an answer; lines already said are
    /// looked at too.
    ///
    /// # Panics
    /// When it ends, or the deadline passes, without one; what it said is shown.
    pub fn line<T>(&self, what: &str, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        let begun = Instant::now();
        let mut lines = self.output.lock();
        let mut looked = 0;
        loop {
            while let Some(line) = lines.all.get(looked) {
                if let Some(found) = pick(line) {
                    return found;
                }
                looked += 1;
            }
            let left = DEADLINE.saturating_sub(begun.elapsed());
            if lines.open == 0 || left.is_zero() {
                panic!("{} never said {what}:\n{}", self.name, lines.all.join("\n"));
            }
            let waited = self.output.changed.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When the system does not tell.
    #[must_use]
    pub fn runs(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the state of a child")
            .is_none()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("the number of a process");
        let sent = Pid::from_raw(id).map(|process| kill_process(process, signal));
        assert!(matches!(sent, Some(Ok(()))), "{signal:?} to {}", self.name);
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub fn kill(mut self) -> Ended {
        // It may have ended by itself: then there is nothing to kill.
        let _ = self.child.kill();
        self.finish()
    }

    /// Waits for its own end.
    ///
    /// # Panics
    /// When that does not come in time; what it said is shown.
    #[must_use]
    pub fn ended(mut self) -> Ended {
        let name = self.name.clone();
        until(&format!("{name} ended"), || {
            self.child.try_wait().expect("the state of a child")
        });
        self.finish()
    }

    fn finish(&mut self) -> Ended {
        let status = self.child.wait().expect("the status of a child");
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader of output");
        }
        Ended {
            status,
            lines: std::mem::take(&mut self.output.lock().all),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Nothing more can be done for a child that resists.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let said = self.output.lock().all.join("\n  ");
            // A failing test shows what its programs said.
            let _ = writeln!(std::io::stderr(), "{} said:\n  {said}", self.name);
        }
    }
}
