//! Which edge to dial, and what to show it.

use adit_link::agent::AgentLink;
use adit_model::{Carrier, CarrierDoor, JoinString, Psk, PublicKey};

use crate::error::AgentError;
use crate::forgotten::Remembered;
use crate::state::{DataFolder, EdgeRecord, StateError, WAYS};

/// The edge that is remembered where there is no choice.
fn only(known: Vec<EdgeRecord>) -> Option<EdgeRecord> {
    <[EdgeRecord; 1]>::try_from(known).ok().map(|[one]| one)
}

fn add_doors(doors: &mut Vec<CarrierDoor>, others: &[CarrierDoor]) {
    for door in others {
        if !doors.contains(door) {
            doors.push(*door);
        }
    }
}

/// The edge of one agent. The credential is the secret that the edge handed
/// out where there is one, else the join string's; the agent never goes back
/// from the first to the second by itself.
pub(crate) struct Known {
    pub(crate) edge: PublicKey,
    pub(crate) addresses: Vec<String>,
    pub(crate) doors: Vec<CarrierDoor>,
    ways: Vec<(String, Carrier)>,
    pub(crate) psk: Psk,
    pub(crate) own_secret: bool,
    data: DataFolder,
}

impl Known {
    /// The join string's edge, or the one that was joined. Blocks on files.
    pub(crate) fn find(join: Option<JoinString>, data: DataFolder) -> Result<Self, AgentError> {
        let psk_of = |join: JoinString| join.credential.psk().clone();
        let (record, joining) = match join {
            Some(join) => {
                let mut record = EdgeRecord {
                    edge: join.edge,
                    addresses: join.addresses.clone(),
                    doors: join.doors.clone(),
                    ways: Vec::new(),
                    secret: None,
                    join: None,
                };
                if let Some(known) = data.edge(&join.edge)? {
                    add_doors(&mut record.doors, &known.doors);
                    (record.ways, record.secret) = (known.ways, known.secret);
                }
                (record, Some(psk_of(join)))
            }
            None => {
                let mut known = match data.joined()? {
                    Some(joined) => joined,
                    None => only(data.known_edges()?).ok_or(AgentError::NotJoined)?,
                };
                let joining = known.join.take().map(psk_of);
                (known, joining)
            }
        };
        Ok(Self {
            edge: record.edge,
            addresses: record.addresses,
            doors: record.doors,
            ways: record.ways,
            own_secret: record.secret.is_some(),
            psk: record.secret.or(joining).ok_or(AgentError::NotJoined)?,
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

    /// Which carrier worked on a network last.
    pub(crate) fn worked(&self, network: &str) -> Option<Carrier> {
        let way = self.ways.iter().find(|(net, _)| net == network);
        way.map(|(_, carrier)| *carrier)
    }

    /// Remembers which doors the edge says to have and, where it was chosen, by
    /// which carrier it was reached from a network.
    pub(crate) async fn learn_way(
        &mut self,
        link: &AgentLink,
        network: Option<String>,
    ) -> Result<(), StateError> {
        let carrier = link.spot().carrier;
        self.doors.clone_from(&link.auth().doors);
        if let Some(network) = &network {
            self.ways.retain(|(net, _)| net != network);
            self.ways.insert(0, (network.clone(), carrier));
            self.ways.truncate(WAYS);
        }
        let (data, edge, doors) = (self.data.clone(), self.edge, self.doors.clone());
        let save = move || {
            let way = network.as_deref().map(|network| (network, carrier));
            data.save_way(&edge, &doors, way)
        };
        let saved = tokio::task::spawn_blocking(save).await;
        saved.unwrap_or(Err(StateError::Interrupted))
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
