//! Which edge to dial, and what to show it.

use adit_link::agent::AgentLink;
use adit_model::{JoinString, Psk, PublicKey};

use crate::error::AgentError;
use crate::forgotten::Remembered;
use crate::state::{DataFolder, StateError};

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
                let known = data.joined()?.ok_or(AgentError::NotJoined)?;
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
