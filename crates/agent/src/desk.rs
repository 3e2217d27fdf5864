//! The control socket of a running agent, for its owner: it says how things
//! stand and takes no orders.
//!
//! `running/<n>.sock` in the data folder, which any number of agents may use.
//! A process that was killed leaves its socket; the next agent that starts
//! takes it away. [`agents`] is the other side.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use adit_link::owner;
use adit_link::tasks::Tasks;
use adit_model::Code;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::UnixListener;

use crate::state::{DataFolder, StateError};
use crate::status::{AgentReport, Sources};

/// Most agents of one folder that can be asked.
const MOST: usize = 64;
/// Longest wait for each step of an answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
enum Question {
    Status,
}

#[derive(Deserialize)]
struct Answer {
    ok: Status,
}

#[derive(Deserialize)]
struct Status {
    status: AgentReport,
}

/// Answers until the tasks stop. An agent that cannot be asked serves all the
/// same.
pub(crate) async fn open(tasks: &Tasks, data: DataFolder, sources: Sources) {
    let bound = tokio::task::spawn_blocking(move || Own::bind(&data)).await;
    let (listener, own) = match bound.unwrap_or_else(|error| Err(error.into())) {
        Ok(bound) => bound,
        Err(error) => {
            tracing::warn!(%error, "adit status cannot ask this agent: no control socket");
            return;
        }
    };
    let sources = Arc::new(sources);
    let answer = move |line: Vec<u8>| {
        let sources = Arc::clone(&sources);
        async move { answer(&line, &sources) }
    };
    // Best effort: the next agent takes it away, too.
    let gone = move || drop(fs::remove_file(own.path()));
    owner::serve(tasks, listener, answer, gone);
}

fn answer(line: &[u8], sources: &Sources) -> String {
    match serde_json::from_slice(line) {
        Ok(Question::Status) => json!({ "ok": { "status": sources.report() } }),
        Err(error) => {
            let text = format!("the request is not understood: {error}");
            json!({ "error": { "code": Code::USAGE.number, "text": text } })
        }
    }
    .to_string()
}

/// The folder of the sockets, and this process's own there.
struct Own {
    folder: File,
    at: PathBuf,
    name: String,
}

impl Own {
    /// Takes the first place that no live process has.
    fn bind(data: &DataFolder) -> io::Result<(UnixListener, Self)> {
        let at = data.running();
        let _lock = data.make_running().map_err(io::Error::other)?;
        let folder = File::open(&at)?;
        let mut free = None;
        for number in (1..=MOST).rev() {
            let name = format!("{number}.sock");
            let path = owner::short_path(folder.as_fd(), &at, &name);
            match owner::probe(&path) {
                Ok(()) => continue,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    fs::remove_file(&path)?;
                }
                Err(error) => return Err(error),
            }
            free = Some(name);
        }
        let name = free.ok_or_else(|| {
            let why = format!("{MOST} agents run on {} already", at.display());
            io::Error::other(why)
        })?;
        let own = Self { folder, at, name };
        Ok((owner::bind(&own.path())?, own))
    }

    fn path(&self) -> PathBuf {
        owner::short_path(self.folder.as_fd(), &self.at, &self.name)
    }
}

/// The agents of one data folder.
#[derive(Debug, Default)]
pub struct Agents {
    /// Those that run.
    pub running: Vec<AgentReport>,
    /// Sockets whose process does not answer as an agent does, and why.
    pub silent: Vec<(PathBuf, String)>,
    /// How many were killed, so that they could not take their socket away.
    pub dead: usize,
}

/// Asks all agents of a data folder how things stand. Blocks.
///
/// # Errors
/// The folder cannot be read; one that is absent has no agents.
pub fn agents(data: &Path) -> Result<Agents, StateError> {
    let mut found = Agents::default();
    let at = DataFolder::running_in(data);
    let cannot_read = |source| StateError::Folder {
        path: at.clone(),
        source,
    };
    let folder = match File::open(&at) {
        Ok(folder) => folder,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(cannot_read(error)),
    };
    for number in 1..=MOST {
        let name = format!("{number}.sock");
        let path = owner::short_path(folder.as_fd(), &at, &name);
        match owner::ask(&path, br#"{"do":"status"}"#, PATIENCE) {
            Ok(line) => match serde_json::from_str::<Answer>(&line) {
                Ok(answer) => found.running.push(answer.ok.status),
                Err(_) => {
                    let why = "its answer is not understood: is it of another version?";
                    found.silent.push((at.join(name), why.to_owned()));
                }
            },
            Err(error) => match error.kind() {
                ErrorKind::NotFound => {}
                ErrorKind::ConnectionRefused => found.dead += 1,
                ErrorKind::PermissionDenied => return Err(cannot_read(error)),
                _ => {
                    let why = match error.kind() {
                        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                            format!("no answer within {} s", PATIENCE.as_secs())
                        }
                        _ => error.to_string(),
                    };
                    found.silent.push((at.join(name), why));
                }
            },
        }
    }
    Ok(found)
}
