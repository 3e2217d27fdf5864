//! Notices that this machine was told to forget the agent's edge.
//!
//! `adit edge forget` takes the record of an edge out of the data folder; every
//! agent that lives from that folder has to end its link and its streams. The
//! command knows nothing of running agents, so they look: a few times a second
//! at the record's place, and into it only when it has changed.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use adit_model::PublicKey;
use tokio::time::{Interval, MissedTickBehavior};

use crate::state::DataFolder;

/// Streams end within a second of the command, cutting them included.
const EVERY: Duration = Duration::from_millis(300);

/// What a look at a file costs nearly nothing to find out.
type Stamp = (Option<SystemTime>, u64);

/// Watches the record of one edge.
pub(crate) struct Remembered {
    data: DataFolder,
    edge: PublicKey,
    record: PathBuf,
    seen: Option<Stamp>,
    /// The record held a secret that the edge had handed out.
    admitted: bool,
    tick: Interval,
}

impl Remembered {
    pub(crate) fn new(data: DataFolder, edge: PublicKey) -> Self {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut remembered = Self {
            record: data.record(&edge),
            data,
            edge,
            seen: None,
            admitted: false,
            tick,
        };
        remembered.look();
        remembered
    }

    /// Takes note of a record that was just made.
    pub(crate) fn look(&mut self) {
        // Gone again already: the next look says so.
        self.is_gone();
    }

    /// Waits until the edge is forgotten; may be dropped and called again.
    pub(crate) async fn gone(&mut self) {
        loop {
            self.tick.tick().await;
            if self.is_gone() {
                return;
            }
        }
    }

    /// Whether a record that was there is there no more, or is another one,
    /// made by joining anew after the edge was forgotten.
    pub(crate) fn is_gone(&mut self) -> bool {
        let stamp = match std::fs::metadata(&self.record) {
            Ok(found) => (found.modified().ok(), found.len()),
            // A folder that is gone as a whole, as a volume that was taken
            // away, is no word of the owner's.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = self.record.parent();
                return self.seen.is_some() && folder.is_some_and(std::path::Path::is_dir);
            }
            Err(_) => return false,
        };
        if self.seen.replace(stamp) == Some(stamp) {
            return false;
        }
        // What cannot be read now is looked at again when it changes.
        let Ok(Some(record)) = self.data.edge(&self.edge) else {
            return false;
        };
        let was_admitted = std::mem::replace(&mut self.admitted, record.secret.is_some());
        was_admitted && record.secret.is_none()
    }
}

#[cfg(test)]
mod tests {
    use adit_model::{Credential, JoinString, Psk};

    use super::*;

    #[tokio::test]
    async fn an_edge_is_forgotten_when_its_record_was_there_and_is_not() {
        let root = tempfile::tempdir().unwrap();
        let data = DataFolder::open(root.path()).unwrap();
        let edge = PublicKey([7; 32]);
        let addresses = vec!["edge.test:7400".to_owned()];
        let secret = |n: u8| Psk::from_random(std::array::from_fn(|i| (i as u8) ^ n));
        let join = JoinString {
            addresses: addresses.clone(),
            doors: Vec::new(),
            edge,
            credential: Credential::Shared(secret(1)),
        };
        let mut remembered = Remembered::new(data.clone(), edge);
        assert!(!remembered.is_gone(), "it was never met");
        data.join(&join).unwrap();
        assert!(!remembered.is_gone());
        data.save_secret(&edge, &addresses, &secret(2)).unwrap();
        assert!(!remembered.is_gone());
        data.save_secret(&edge, &addresses, &secret(3)).unwrap();
        data.join(&join).unwrap();
        assert!(!remembered.is_gone(), "joining again keeps the secret");

        data.forget(&edge).unwrap();
        data.join(&join).unwrap();
        assert!(remembered.is_gone(), "forgotten, and joined anew at once");
        assert!(!remembered.is_gone());
        data.forget(&edge).unwrap();
        assert!(remembered.is_gone());
        remembered.gone().await;

        std::fs::remove_dir_all(root.path()).unwrap();
        assert!(!remembered.is_gone(), "a folder that was taken away");
    }
}
