//! Which edge to dial, and what to show it.

use std::time::Duration;

use adit_link::agent::AgentLink;
use adit_model::{JoinString, Psk, PublicKey};
use tokio::time::sleep;

use crate::error::AgentError;
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
    /// A record of the edge was there.
    recorded: bool,
}

/// How often a look is taken whether the edge was forgotten: streams of a
/// forgotten edge end within a second.
const LOOK_EVERY: Duration = Duration::from_millis(400);

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
            recorded: data.remembers(&edge),
            data,
        })
    }

    /// Waits until another process has made this machine forget the edge; may
    /// be dropped and called again.
    pub(crate) async fn forgotten(&mut self) {
        loop {
            let there = self.data.remembers(&self.edge);
            if self.recorded && !there {
                return;
            }
            self.recorded = there;
            sleep(LOOK_EVERY).await;
        }
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
