//! The other side of the control socket: for the commands of the edge's owner.
//!
//! Blocking, because a command does nothing else meanwhile. When no edge runs
//! on the data folder, the client takes its lock and does on the files what the
//! edge would do; so the same commands work before the first start.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_link::owner;
use adit_model::{Credential, JoinString, Pin, Psk, TunnelName};

use super::words::{Answer, GuestWords, Line, Request, TokenWords, agent_infos, find_agent};
use super::{AgentInfo, BanInfo, ControlError, NewToken, Report, Revoked, SOCKET};
use crate::admission::{TokenWish, make_token};
use crate::reached::Reached;
use crate::state::folder::open_folder;
use crate::state::{Keep, StateError, Store};

/// Longest wait for a running edge.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long an edge that holds the folder may take to open its socket.
const START_TIME: Duration = Duration::from_secs(3);

/// An edge that is just starting holds the folder before it answers.
#[expect(
    clippy::disallowed_methods,
    reason = "a command has no runtime whose timer it could wait for"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Which edge is meant, as the configuration says it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its data folder.
    pub data: PathBuf,
    /// Where agents reach it, for join strings, used when no edge runs; a
    /// running one knows its own.
    pub reached: Reached,
    /// The shared secret, when the configuration has one.
    pub secret: Option<Psk>,
}

enum Desk {
    /// An edge runs.
    Edge,
    /// None does; the folder is locked.
    Files(Box<Store>),
}

/// A desk at which the edge's owner is served.
pub struct Client {
    place: Place,
    desk: Desk,
}

impl Client {
    /// Finds the running edge, or takes its folder when none runs. The folder
    /// is made only when `may_create`: a mistyped path must not leave one.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn open(place: Place, may_create: bool) -> Result<Self, ControlError> {
        let Err(mut refused) = probe(&place.data) else {
            let desk = Desk::Edge;
            return Ok(Self { place, desk });
        };
        if !may_create && !place.data.join("format").exists() {
            return Err(ControlError::NotRunning(place.data));
        }
        let give_up = Instant::now() + START_TIME;
        loop {
            match Store::open(&place.data, place.secret.clone()) {
                Ok((store, _)) => {
                    let desk = Desk::Files(Box::new(store));
                    return Ok(Self { place, desk });
                }
                Err(StateError::InUse(data)) if Instant::now() > give_up => {
                    let why = refused.to_string();
                    return Err(ControlError::Silent { data, why });
                }
                Err(StateError::InUse(_)) => pause(),
                Err(error) => return Err(error.into()),
            }
            match probe(&place.data) {
                Ok(()) => {
                    return Ok(Self {
                        place,
                        desk: Desk::Edge,
                    });
                }
                Err(why) => refused = why,
            }
        }
    }

    /// Whether an edge runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.desk, Desk::Edge)
    }

    /// The PIN of the running edge; `None` when it asks for none.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`]: a PIN lives as long as its edge.
    pub fn pin(&self) -> Result<Option<Pin>, ControlError> {
        match self.ask(&Request::Pin)? {
            Answer::Pin { pin } => {
                let pin = pin.as_deref().map(Pin::parse).transpose();
                pin.map_err(|_| self.strange())
            }
            _ => Err(self.strange()),
        }
    }

    /// The join string with the shared secret.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn join(&self) -> Result<JoinString, ControlError> {
        match &self.desk {
            Desk::Edge => self.read_join(self.ask(&Request::Join)?),
            Desk::Files(store) => {
                Ok(self.join_with(store, Credential::Shared(store.shared_secret())))
            }
        }
    }

    /// Makes a one-time join token.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn new_token(&self, wish: &TokenWish) -> Result<NewToken, ControlError> {
        let words = TokenWords::of(wish);
        let store = match &self.desk {
            Desk::Edge => {
                return match self.ask(&Request::NewToken(words))? {
                    Answer::Token(token) => Ok(token),
                    _ => Err(self.strange()),
                };
            }
            Desk::Files(store) => store,
        };
        let token = make_token(words.parse()?, unix_now())?;
        let added = token.clone();
        store.change(|books| match books.add_token(added) {
            Ok(()) => (Keep::Now, Ok(())),
            Err(full) => (Keep::Nothing, Err(full)),
        })?;
        store.save()?;
        let join = self.join_with(store, Credential::Token(token.secret.clone()));
        Ok(NewToken::of(&token, &join))
    }

    /// All enrolled agents.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn agents(&self) -> Result<Vec<AgentInfo>, ControlError> {
        match &self.desk {
            Desk::Edge => match self.ask(&Request::Agents)? {
                Answer::Agents { agents } => Ok(agents),
                _ => Err(self.strange()),
            },
            Desk::Files(store) => Ok(store.read(|books| agent_infos(books, |_| None))),
        }
    }

    /// Takes the way in of an agent, by its key or its name; its live links
    /// end.
    ///
    /// # Errors
    /// [`ControlError::NoSuchAgent`], [`ControlError::Ambiguous`] and others.
    pub fn revoke(&self, agent: &str) -> Result<Revoked, ControlError> {
        let store = match &self.desk {
            Desk::Edge => {
                let agent = agent.to_owned();
                return match self.ask(&Request::Revoke { agent })? {
                    Answer::Revoked(revoked) => Ok(revoked),
                    _ => Err(self.strange()),
                };
            }
            Desk::Files(store) => store,
        };
        let key = store.read(|books| find_agent(books, agent))?;
        store.change(|books| (Keep::Now, books.revoke(&key)));
        store.save()?;
        Ok(Revoked {
            key: key.to_string(),
            links: None,
        })
    }

    /// Makes a new shared secret; tells the new join string. Enrolled agents
    /// stay in.
    ///
    /// # Errors
    /// [`StateError::SecretIsConfigured`] and others.
    pub fn rotate_secret(&self) -> Result<JoinString, ControlError> {
        match &self.desk {
            Desk::Edge => self.read_join(self.ask(&Request::Rotate)?),
            Desk::Files(store) => {
                let psk = store.rotate_secret()?;
                Ok(self.join_with(store, Credential::Shared(psk)))
            }
        }
    }

    /// Lets an address in to a tunnel for so long.
    ///
    /// # Errors
    /// [`ControlError::Guest`]'s words, [`ControlError::NotRunning`] and others.
    pub fn let_in(
        &self,
        tunnel: &TunnelName,
        address: IpAddr,
        time: Duration,
    ) -> Result<(), ControlError> {
        let words = GuestWords {
            tunnel: tunnel.to_string(),
            address,
            seconds: time.as_secs(),
        };
        match self.ask(&Request::LetIn(words))? {
            Answer::Guest { .. } => Ok(()),
            _ => Err(self.strange()),
        }
    }

    /// Takes that back; false when the address was not let in.
    ///
    /// # Errors
    /// As [`Client::let_in`].
    pub fn shut_out(&self, tunnel: &TunnelName, address: IpAddr) -> Result<bool, ControlError> {
        let words = GuestWords {
            tunnel: tunnel.to_string(),
            address,
            seconds: 0,
        };
        match self.ask(&Request::ShutOut(words))? {
            Answer::Guest { changed } => Ok(changed),
            _ => Err(self.strange()),
        }
    }

    /// Who is banned, the longest first.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`] and others.
    pub fn bans(&self) -> Result<Vec<BanInfo>, ControlError> {
        match self.ask(&Request::Bans)? {
            Answer::Bans { bans } => Ok(bans),
            _ => Err(self.strange()),
        }
    }

    /// Bans an address for so long.
    ///
    /// # Errors
    /// [`ControlError::NeverBanned`]'s words and others.
    pub fn ban(&self, address: IpAddr, time: Duration) -> Result<(), ControlError> {
        let seconds = time.as_secs();
        match self.ask(&Request::Ban { address, seconds })? {
            Answer::Ban { .. } => Ok(()),
            _ => Err(self.strange()),
        }
    }

    /// Lifts a ban; false when there was none.
    ///
    /// # Errors
    /// As [`Client::bans`].
    pub fn lift(&self, address: IpAddr) -> Result<bool, ControlError> {
        match self.ask(&Request::Lift { address })? {
            Answer::Ban { changed } => Ok(changed),
            _ => Err(self.strange()),
        }
    }

    /// What the running edge says about itself.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`] and others.
    pub fn status(&self) -> Result<serde_json::Value, ControlError> {
        match self.ask(&Request::Status)? {
            Answer::Status { status } => Ok(status),
            _ => Err(self.strange()),
        }
    }

    /// The same as a [`Report`].
    ///
    /// # Errors
    /// [`ControlError::NotRunning`] and others.
    pub fn report(&self) -> Result<Report, ControlError> {
        serde_json::from_value(self.status()?).map_err(|_| self.strange())
    }

    fn join_with(&self, store: &Store, credential: Credential) -> JoinString {
        self.place
            .reached
            .join(store.identity().public(), credential)
    }

    fn read_join(&self, answer: Answer) -> Result<JoinString, ControlError> {
        match answer {
            Answer::Join { join } => join.parse().map_err(|_| self.strange()),
            _ => Err(self.strange()),
        }
    }

    fn strange(&self) -> ControlError {
        self.silent("its answer is not understood: is it of another version?")
    }

    fn silent(&self, why: &str) -> ControlError {
        ControlError::Silent {
            data: self.place.data.clone(),
            why: why.to_owned(),
        }
    }

    fn ask(&self, request: &Request) -> Result<Answer, ControlError> {
        if !self.is_running() {
            return Err(ControlError::NotRunning(self.place.data.clone()));
        }
        let line = converse(&self.place.data, request).map_err(|e| self.silent(&e.to_string()))?;
        match serde_json::from_str(&line) {
            Ok(Line::Ok(answer)) => Ok(answer),
            Ok(Line::Error { code, text }) => Err(ControlError::Edge { code, text }),
            Err(_) => Err(self.strange()),
        }
    }
}

fn converse(data: &Path, request: &Request) -> io::Result<String> {
    let folder = open_folder(data).map_err(io::Error::other)?;
    let socket = owner::short_path(folder.as_fd(), data, SOCKET);
    owner::ask(&socket, &serde_json::to_vec(request)?, PATIENCE)
}

/// Whether an edge listens in the folder.
fn probe(data: &Path) -> io::Result<()> {
    let folder = open_folder(data).map_err(io::Error::other)?;
    owner::probe(&owner::short_path(folder.as_fd(), data, SOCKET))
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
