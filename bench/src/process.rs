//! Processes that the bench starts, and what the kernel says about them.
//!
//! Invariant: a [`Running`] process is ended by its own id, and with it the
//! descendants it had: nothing else is ever signalled.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::error::BenchError;

/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one may take to come up.
const START: Duration = Duration::from_secs(60);
/// Between two looks at a condition that has no event.
const LOOK: Duration = Duration::from_millis(20);

/// One process and its log.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Running {
    /// Starts a program; both its outputs go to `<dir>/<name>.log`.
    pub(crate) fn start<A: AsRef<OsStr>>(
        program: &Path,
        arguments: &[A],
        dir: &Path,
        name: &str,
    ) -> Result<Self, BenchError> {
        Self::start_by(&[], program, arguments, dir, name)
    }

    /// The same with words in front of the program that run it elsewhere,
    /// under the id that it would have anyway.
    pub(crate) fn start_by<A: AsRef<OsStr>>(
        words: &[String],
        program: &Path,
        arguments: &[A],
        dir: &Path,
        name: &str,
    ) -> Result<Self, BenchError> {
        let log = dir.join(format!("{name}.log"));
        let file =
            File::create(&log).map_err(BenchError::io(format!("write {}", log.display())))?;
        let copy = file.try_clone().map_err(BenchError::io("share a log"))?;
        let words = words.iter().map(OsStr::new);
        let mut all = words.chain([program.as_os_str()]);
        let child = Command::new(all.next().unwrap_or_default())
            .args(all)
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .kill_on_drop(true)
            .spawn()
            .map_err(BenchError::io(format!("start {}", program.display())))?;
        let name = name.to_owned();
        Ok(Self { child, name, log })
    }

    /// Its id, while it lives.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Where it writes what it says.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until `ready` says yes, and says what the process wrote when it
    /// ends or a minute passes before that.
    pub(crate) async fn until<F: AsyncFnMut() -> bool>(
        &mut self,
        what: &str,
        mut ready: F,
    ) -> Result<(), BenchError> {
        let deadline = Instant::now() + START;
        loop {
            if ready().await {
                return Ok(());
            }
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() >= deadline {
                return Err(BenchError::Failed(format!(
                    "{}: {what} did not come about ({}); it said: {}",
                    self.name,
                    ended.map_or_else(|| "still running".to_owned(), |s| s.to_string()),
                    tail(&fs::read_to_string(&self.log).unwrap_or_default())
                )));
            }
            sleep(LOOK).await;
        }
    }

    /// Asks it to end, insists after 5 s, and waits for its descendants.
    pub(crate) async fn stop(mut self) {
        let Some(id) = self.child.id() else { return };
        let family = Table::read().family(&[id]);
        signal(id, Signal::TERM);
        if timeout(PATIENCE, self.child.wait()).await.is_err() {
            // Refused only when it is gone already.
            let _ = self.child.kill().await;
        }
        let deadline = Instant::now() + PATIENCE;
        for orphan in family.into_iter().filter(|p| *p != id) {
            while alive(orphan) {
                if Instant::now() >= deadline {
                    signal(orphan, Signal::KILL);
                    break;
                }
                sleep(LOOK).await;
            }
        }
    }
}

fn signal(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        // Fails only when the process has ended already.
        let _ = kill_process(pid, signal);
    }
}

fn alive(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|s| !s.contains(") Z "))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" / ")
}

/// One look at the process table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: HashMap<u32, Row>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    parent: u32,
    ticks: u64,
}

impl Table {
    /// Reads `/proc`; processes that end meanwhile are left out.
    pub(crate) fn read() -> Self {
        let rows = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter_map(|id| {
                let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
                Some((id, Row::parse(&text)?))
            })
            .collect();
        Self { rows }
    }

    /// The given processes and all their descendants.
    pub(crate) fn family(&self, roots: &[u32]) -> Vec<u32> {
        let mut found: Vec<u32> = roots.to_vec();
        let mut next = 0;
        while let Some(&parent) = found.get(next) {
            next += 1;
            let children = self.rows.iter().filter(|(_, row)| row.parent == parent);
            found.extend(children.map(|(id, _)| *id));
        }
        found
    }

    /// CPU seconds, user and system, of the processes, their descendants,
    /// and the descendants that have ended.
    pub(crate) fn cpu_seconds(&self, roots: &[u32]) -> f64 {
        let ticks: u64 = self
            .family(roots)
            .iter()
            .filter_map(|id| self.rows.get(id))
            .map(|row| row.ticks)
            .sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }
}

impl Row {
    /// Fields 4 (parent) and 14 to 17 (own and waited-for children's user and
    /// system ticks) of `/proc/PID/stat`, counted after the name in
    /// parentheses, which may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
        let ticks = (11..15).map(number).sum::<Option<u64>>()?;
        let parent = fields.get(1)?.parse().ok()?;
        Some(Self { parent, ticks })
    }
}

/// Resident memory of one process in bytes.
pub(crate) fn resident(id: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Open descriptors of one process.
pub(crate) fn descriptors(id: u32) -> usize {
    fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_stat_line_with_a_hostile_name() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 1 0 5 6 7";
        let row = Row::parse(text).expect("a row");
        assert_eq!((row.parent, row.ticks), (7, 110));
    }

    #[test]
    fn a_family_is_the_root_and_all_below_it() {
        let row = |parent| Row { parent, ticks: 1 };
        let rows = [
            (1, row(0)),
            (2, row(1)),
            (3, row(2)),
            (4, row(1)),
            (5, row(9)),
        ]
        .into();
        let mut family = Table { rows }.family(&[2]);
        family.sort_unstable();
        assert_eq!(family, [2, 3]);
    }

    #[test]
    fn sees_itself() {
        let table = Table::read();
        assert!(table.rows.contains_key(&std::process::id()));
        assert!(resident(std::process::id()).expect("a size") > 100_000);
    }
}
