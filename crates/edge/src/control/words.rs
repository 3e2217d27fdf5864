//! The words of the control socket, and what both of its sides do alike.

use std::net::IpAddr;
use std::time::Duration;

use adit_model::{JoinString, PublicKey, TunnelName};
use serde::{Deserialize, Serialize};

use super::ControlError;
use crate::admission::TokenWish;
use crate::state::{AdmittedBy, Books, Token};

/// Most characters of an agent's name.
const MAX_LABEL: usize = 64;
/// Most seconds that a token may admit: a year.
const MAX_LIFE: u64 = 366 * 24 * 3600;

/// What may be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Request {
    Pin,
    Join,
    NewToken(TokenWords),
    Agents,
    Revoke { agent: String },
    Rotate,
    Status,
    LetIn(GuestWords),
    ShutOut(GuestWords),
    Bans,
    Ban { address: IpAddr, seconds: u64 },
    Lift { address: IpAddr },
}

/// An address and a tunnel, as they are sent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GuestWords {
    pub(super) tunnel: String,
    pub(super) address: IpAddr,
    #[serde(default)]
    pub(super) seconds: u64,
}

/// Most seconds of a ban: a year.
const MAX_BAN: u64 = 366 * 24 * 3600;

/// How long a ban shall last.
pub(super) fn ban_time(seconds: u64) -> Result<Duration, ControlError> {
    if !(1..=MAX_BAN).contains(&seconds) {
        let problem = "an address is banned for 1 second to 366 days".to_owned();
        return Err(ControlError::BadRequest(problem));
    }
    Ok(Duration::from_secs(seconds))
}

/// Most seconds for which an address is let in: a day.
const MAX_VISIT: u64 = 24 * 3600;

impl GuestWords {
    pub(super) fn time(&self) -> Result<Duration, ControlError> {
        if !(1..=MAX_VISIT).contains(&self.seconds) {
            let problem = "an address is let in for 1 second to a day".to_owned();
            return Err(ControlError::BadRequest(problem));
        }
        Ok(Duration::from_secs(self.seconds))
    }

    pub(super) fn name(&self) -> Result<TunnelName, ControlError> {
        let name = TunnelName::parse(&self.tunnel);
        name.map_err(|why| ControlError::BadRequest(format!("tunnel name: {why}")))
    }
}

/// A wish for a token as it is sent.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct TokenWords {
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    seconds: Option<u64>,
}

impl TokenWords {
    pub(super) fn of(wish: &TokenWish) -> Self {
        Self {
            scope: wish.scope.as_ref().map(ToString::to_string),
            label: wish.label.clone(),
            seconds: wish.life.map(|life| life.as_secs()),
        }
    }

    pub(super) fn parse(self) -> Result<TokenWish, ControlError> {
        let bad = |problem: String| ControlError::BadRequest(problem);
        let scope = self.scope.map(|name| TunnelName::parse(&name)).transpose();
        let is_name = |label: &String| {
            let chars = label.chars().count();
            (1..=MAX_LABEL).contains(&chars) && !label.chars().any(char::is_control)
        };
        if !self.label.as_ref().is_none_or(is_name) {
            let problem = format!("an agent's name has 1 to {MAX_LABEL} printable characters");
            return Err(bad(problem));
        }
        if self.seconds.is_some_and(|s| s == 0 || s > MAX_LIFE) {
            return Err(bad("a token admits for 1 second to 366 days".to_owned()));
        }
        Ok(TokenWish {
            scope: scope.map_err(|e| bad(format!("tunnel name: {e}")))?,
            label: self.label,
            life: self.seconds.map(Duration::from_secs),
        })
    }
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    Pin {
        pin: Option<String>,
    },
    Join {
        join: String,
    },
    Token(NewToken),
    Agents {
        agents: Vec<AgentInfo>,
    },
    Revoked(Revoked),
    Status {
        status: serde_json::Value,
    },
    /// Whether something has changed.
    Guest {
        changed: bool,
    },
    Bans {
        bans: Vec<BanInfo>,
    },
    /// Whether something has changed.
    Ban {
        changed: bool,
    },
}

/// The line of an answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Line {
    Ok(Answer),
    Error { code: u16, text: String },
}

/// A token as it is handed out. Its `Debug` hides the join string.
#[derive(Clone, Serialize, Deserialize)]
pub struct NewToken {
    /// Names it.
    pub id: String,
    /// The join string that carries it.
    pub join: String,
    /// Unix seconds; from then on it admits nobody.
    pub expires: u64,
    /// The only tunnel that whoever joins by it may open.
    pub scope: Option<String>,
}

impl NewToken {
    pub(super) fn of(token: &Token, join: &JoinString) -> Self {
        Self {
            id: token.id.to_string(),
            join: join.expose(),
            expires: token.expires,
            scope: token.scope.as_ref().map(ToString::to_string),
        }
    }
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewToken({}, hidden)", self.id)
    }
}

/// A banned address as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanInfo {
    /// The address; of IPv6 the /64.
    pub address: String,
    /// Seconds to the end of the ban.
    pub seconds_left: u64,
}

/// An enrolled agent as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Its identity.
    pub key: String,
    /// What people call it.
    pub name: Option<String>,
    /// `secret`, or `token` and its id.
    pub admitted_by: String,
    /// The only tunnel it may open.
    pub scope: Option<String>,
    /// First join, unix seconds.
    pub first_seen: u64,
    /// Last sign of life, unix seconds; to a minute while it is live.
    pub last_seen: u64,
    /// Live links; `None` when no edge runs.
    pub links: Option<usize>,
}

/// What a revocation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Whose.
    pub key: String,
    /// Links that were cut; `None` when no edge runs.
    pub links: Option<usize>,
}

/// All agents, the longest known first.
pub(super) fn agent_infos(
    books: &Books,
    links_of: impl Fn(&PublicKey) -> Option<usize>,
) -> Vec<AgentInfo> {
    let mut agents: Vec<_> = books.agents().collect();
    agents.sort_unstable_by_key(|agent| (agent.first_seen, agent.key));
    let info = |agent: &crate::state::Agent| AgentInfo {
        key: agent.key.to_string(),
        name: agent.name.clone(),
        admitted_by: match agent.admitted_by {
            AdmittedBy::SharedSecret => "secret".to_owned(),
            AdmittedBy::Token(id) => format!("token {id}"),
        },
        scope: agent.scope.as_ref().map(ToString::to_string),
        first_seen: agent.first_seen,
        last_seen: agent.last_seen,
        links: links_of(&agent.key),
    };
    agents.into_iter().map(info).collect()
}

/// An agent by its key, or by a name that no other has.
pub(super) fn find_agent(books: &Books, text: &str) -> Result<PublicKey, ControlError> {
    if let Ok(key) = text.parse::<PublicKey>() {
        let known = books.agent(&key).map(|agent| agent.key);
        return known.ok_or_else(|| ControlError::NoSuchAgent(text.to_owned()));
    }
    let mut named = books.agents().filter(|a| a.name.as_deref() == Some(text));
    match (named.next(), named.next()) {
        (Some(agent), None) => Ok(agent.key),
        (Some(_), Some(_)) => Err(ControlError::Ambiguous(text.to_owned())),
        (None, _) => Err(ControlError::NoSuchAgent(text.to_owned())),
    }
}
