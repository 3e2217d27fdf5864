//! Which edge to dial, and what to show it.

use adit_link::agent::AgentLink;
use adit_model::{JoinString, Psk, PublicKey};

use crate::error::AgentError;
use crate::forgotten::Remembered;
use crate::state::{DataFolder, EdgeRecord, StateError};

/// The edge that is remembered where there is no choice.
fn only(known: Vec<EdgeRecord>) -> Option<EdgeRecord> {
    <[EdgeRecord; 1]>::try_from(known).ok().map(|[one]| one)
}

/// The edge of one agent. The credential is the secret that the edge handed
/// out where there is one, else the join string's; the agent never goes back
/// from the first to the second by itself.
pub(crate) struct Known {
    pub(crate) edge: PublicKey,
    pub(crate) addresses: Vec<String>,
    pub(crate) psk: Psk,
    pub(crate) own_secret: bool,
    data: DataFolder,
}

impl Known {
    /// The join string's edge, or the one that was joined. Blocks on files.
    pub(crate) fn find(join: Option<JoinString>, data: DataFolder) -> Result<Self, AgentError> {
        let psk_of = |join: JoinString| join.credential.psk().clone();
        let (edge, addresses, secret, joining) = match join {
            Some(join) => {
                let secret = data.edge(&join.edge)?.and_then(|known| known.secret);
                (
                    join.edge,
                    join.addresses.clone(),
                    secret,
                    Some(psk_of(join)),
                )
            }
            None => {
                let known = match data.joined()? {
                    Some(joined) => joined,
                    None => only(data.known_edges()?).ok_or(AgentError::NotJoined)?,
                };
                let joining = known.join.map(psk_of);
                (known.edge, known.addresses, known.secret, joining)
            }
        };
        Ok(Self {
            edge,
            addresses,
            own_secret: secret.is_some(),
            psk: secret.or(joining).ok_or(AgentError::NotJoined)?,
            data,
        })
    }

    /// Shows the join string's secret from now on, if another was meant to be
    /// shown; gives that one back.
    pub(crate) fn prove_by(&mut self, join: &JoinString) -> Option<Psk> {
        let asked = join.credential.psk().clone();
        if !std::mem::replace(&mut self.own_secret, false) {
            return None;
        }
        Some(std::mem::replace(&mut self.psk, asked))
    }

    /// Shows the secret that the edge has handed out.
    pub(crate) fn prove_by_own(&mut self, secret: Psk) {
        (self.psk, self.own_secret) = (secret, true);
    }

    /// Watches whether this edge is forgotten.
    pub(crate) fn watch(&self) -> Remembered {
        Remembered::new(self.data.clone(), self.edge)
    }

    /// Keeps the secret that the edge handed over. Where it cannot be saved
    /// the agent goes on with what it has: a secret that was used once must
    /// outlive this process.
    pub(crate) async fn learn(&mut self, link: &AgentLink) -> Result<(), StateError> {
        let Some(secret) = link.auth().agent_secret.clone() else {
            return Ok(());
        };
        if self.own_secret && secret == self.psk {
            return Ok(());
        }
        let (data, edge) = (self.data.clone(), self.edge);
        let (addresses, kept) = (self.addresses.clone(), secret.clone());
        let save = move || data.save_secret(&edge, &addresses, &kept);
        let saved = tokio::task::spawn_blocking(save).await;
        saved.unwrap_or(Err(StateError::Interrupted))?;
        (self.psk, self.own_secret) = (secret, true);
        Ok(())
    }

    /// Whether another process with the same data folder has been handed a
    /// secret since; it is this agent's too.
    pub(crate) async fn refresh(&mut self) -> bool {
        let (data, edge) = (self.data.clone(), self.edge);
        let read = tokio::task::spawn_blocking(move || data.edge(&edge)).await;
        // What cannot be read now was read at the start: nothing newer.
        let Ok(Ok(Some(record))) = read else {
            return false;
        };
        match record.secret {
            Some(secret) if secret != self.psk => {
                (self.psk, self.own_secret) = (secret, true);
                true
            }
            _ => false,
        }
    }
}
