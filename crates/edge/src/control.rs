//! The control socket: what the edge's owner asks of a running edge.
//!
//! `control.sock` in the data folder, mode 0600, for the edge's own user and
//! root only. One JSON object on one line is the request, one line the answer;
//! then the connection ends. [`client`] is the other side, which does the same
//! work on the files when no edge runs.
//!
//! Invariants: requests and connections are bounded in size, number and time;
//! an answer is `{"ok": …}` or `{"error": {"code": …, "text": …}}`.

pub mod client;
mod report;
mod words;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_link::owner;
use adit_link::tasks::Tasks;
use adit_model::{Code, Credential, JoinString, Psk};

pub use self::report::{CertificateReport, DoorReport, LinkReport, Report, Totals, TunnelReport};
pub use self::words::{AgentInfo, BanInfo, NewToken, Revoked};
use self::words::{Answer, Request, agent_infos, ban_time, find_agent};
use crate::admission::{Admission, ManageError};
use crate::limits::Limits;
use crate::reached::Reached;
use crate::rules::{GuestError, Rules};
use crate::state::StateError;

/// The socket's name in the data folder.
pub(crate) const SOCKET: &str = "control.sock";
/// Most banned addresses that are listed.
const MAX_BANS: usize = 10_000;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No edge runs, and only a running one could answer.
    #[error("no edge runs on the data folder {}: start it with adit server", .0.display())]
    NotRunning(std::path::PathBuf),
    /// A process holds the folder and does not answer.
    #[error(
        "a process holds the data folder {}, but does not answer on its control socket: {why}",
        data.display()
    )]
    Silent {
        /// The data folder.
        data: std::path::PathBuf,
        /// What came instead of an answer.
        why: String,
    },
    /// No agent has this key or name.
    #[error("no agent {0} is enrolled: adit agents list shows them all")]
    NoSuchAgent(String),
    /// Several agents have this name.
    #[error("several agents are called {0}: name one by its key")]
    Ambiguous(String),
    /// The request is not understood.
    #[error("the request is not understood: {0}")]
    BadRequest(String),
    /// The running edge said no.
    #[error("{text}")]
    Edge {
        /// The number of its code.
        code: u16,
        /// What it said.
        text: String,
    },
    /// A table is full.
    #[error(transparent)]
    Full(#[from] crate::state::BooksFull),
    /// Nobody could be let in.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// Others may stand behind the address.
    #[error("{0} is never banned: it is this machine's own, or a trusted proxy's")]
    NeverBanned(IpAddr),
    /// The data folder.
    #[error(transparent)]
    State(#[from] StateError),
}

impl ControlError {
    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotRunning(_) => Code::NO_EDGE_RUNNING,
            Self::Silent { .. } => Code::DATA_IN_USE,
            Self::NoSuchAgent(_) | Self::Ambiguous(_) => Code::NO_SUCH_AGENT,
            Self::BadRequest(_) | Self::Full(_) | Self::Guest(_) | Self::NeverBanned(_) => {
                Code::USAGE
            }
            Self::Edge { code, .. } => Code::from_number(*code).unwrap_or(Code::DATA_UNREADABLE),
            Self::State(error) => error.code(),
        }
    }
}

impl From<ManageError> for ControlError {
    fn from(error: ManageError) -> Self {
        match error {
            ManageError::NoSuchAgent(key) => Self::NoSuchAgent(key.to_string()),
            ManageError::Full(full) => Self::Full(full),
            ManageError::State(error) => Self::State(error),
        }
    }
}

/// What a running edge says about its links, tunnels and doors.
pub trait Status: Send + Sync {
    /// For `adit status`, as one JSON object: a [`Report`].
    fn status(&self) -> serde_json::Value;
}

/// What answers on the socket.
pub struct Control {
    admission: Arc<Admission>,
    /// `host:port` of the link door, as agents reach it.
    reached: Reached,
    status: Arc<dyn Status>,
    rules: Arc<Rules>,
    limits: Arc<Limits>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Control({:?})", self.reached)
    }
}

impl Control {
    /// Answers for one edge. `address` goes into join strings.
    #[must_use]
    pub(crate) fn new(
        admission: Arc<Admission>,
        reached: Reached,
        status: Arc<dyn Status>,
        (rules, limits): (Arc<Rules>, Arc<Limits>),
    ) -> Arc<Self> {
        Arc::new(Self {
            admission,
            reached,
            status,
            rules,
            limits,
        })
    }

    fn join(&self, credential: Credential) -> JoinString {
        let edge = self.admission.identity().public();
        self.reached.join(edge, credential)
    }

    async fn answer_line(&self, line: &[u8]) -> String {
        let answer = match serde_json::from_slice(line) {
            Ok(request) => self.answer(request).await,
            Err(error) => Err(ControlError::BadRequest(error.to_string())),
        };
        let answer = match &answer {
            Ok(answer) => serde_json::json!({ "ok": answer }),
            Err(error) => {
                let (code, text) = (error.code().number, error.to_string());
                serde_json::json!({ "error": { "code": code, "text": text } })
            }
        };
        answer.to_string()
    }

    async fn answer(&self, request: Request) -> Result<Answer, ControlError> {
        let shared = |psk: Psk| self.join(Credential::Shared(psk)).expose();
        Ok(match request {
            Request::Pin => {
                let pin = self.admission.current_pin().map(|pin| pin.expose());
                Answer::Pin { pin }
            }
            Request::Join => Answer::Join {
                join: shared(self.admission.store().shared_secret()),
            },
            Request::NewToken(wish) => {
                let token = self.admission.new_token(wish.parse()?).await?;
                let join = self.join(Credential::Token(token.secret.clone()));
                Answer::Token(NewToken::of(&token, &join))
            }
            Request::Agents => {
                let links = |key: &_| Some(self.admission.links_of(key));
                let store = self.admission.store();
                let agents = store.read(|books| agent_infos(books, links));
                Answer::Agents { agents }
            }
            Request::Revoke { agent } => {
                let store = self.admission.store();
                let key = store.read(|books| find_agent(books, &agent))?;
                let links = self.admission.revoke(&key).await?;
                Answer::Revoked(Revoked {
                    key: key.to_string(),
                    links: Some(links),
                })
            }
            Request::Rotate => Answer::Join {
                join: shared(self.admission.rotate_secret().await?),
            },
            Request::Status => Answer::Status {
                status: self.status.status(),
            },
            other => return self.judge_address(other),
        })
    }

    /// What is asked about visitors' addresses.
    fn judge_address(&self, request: Request) -> Result<Answer, ControlError> {
        let now = Instant::now();
        Ok(match request {
            Request::LetIn(guest) => {
                let (name, time) = (guest.name()?, guest.time()?);
                self.rules.let_in(&name, guest.address, time, now)?;
                Answer::Guest { changed: true }
            }
            Request::ShutOut(guest) => {
                let changed = self.rules.shut_out(&guest.name()?, guest.address, now)?;
                Answer::Guest { changed }
            }
            Request::Ban { address, seconds } => {
                if !self.limits.ban(address, ban_time(seconds)?, now) {
                    return Err(ControlError::NeverBanned(address));
                }
                tracing::info!(%address, seconds, "banned by the owner");
                Answer::Ban { changed: true }
            }
            Request::Lift { address } => {
                let changed = self.limits.lift(address, now);
                tracing::info!(%address, changed, "a ban was lifted by the owner");
                Answer::Ban { changed }
            }
            _ => {
                let bans = self.limits.bans(now, MAX_BANS).into_iter();
                let shown = bans.map(|(address, left)| BanInfo {
                    address: address.to_string(),
                    seconds_left: left.as_secs(),
                });
                Answer::Bans {
                    bans: shown.collect(),
                }
            }
        })
    }
}

/// Opens the socket and answers on it until `tasks` stop.
///
/// # Errors
/// When the socket cannot be made in the data folder.
pub fn listen(tasks: &Tasks, control: Arc<Control>) -> io::Result<()> {
    let folder = control.admission.store().folder();
    // The lock is held, so that a socket found there is a dead one.
    folder.remove(SOCKET).map_err(io::Error::other)?;
    let listener = owner::bind(&folder.short_path_of(SOCKET))?;
    let asked = Arc::clone(&control);
    let answer = move |line: Vec<u8>| {
        let control = Arc::clone(&asked);
        async move { control.answer_line(&line).await }
    };
    let gone = move || {
        // Best effort: the next edge removes it too.
        let _ = control.admission.store().folder().remove(SOCKET);
    };
    owner::serve(tasks, listener, answer, gone);
    Ok(())
}

#[cfg(test)]
mod tests;
