//! What is remembered of each edge, by its key.

use std::path::{Path, PathBuf};

use adit_model::{Carrier, CarrierDoor, JoinString, Psk, PublicKey};
use serde::{Deserialize, Serialize};

use super::{DataFolder, FORMAT, SecretText, StateError, check_format, damaged, file};

/// One edge that this agent knows.
#[derive(Clone, Debug)]
pub struct EdgeRecord {
    /// The key that the edge must prove.
    pub edge: PublicKey,
    /// `host:port` of its link doors, the first tried first.
    pub addresses: Vec<String>,
    /// Its doors for other carriers, as it said last.
    pub doors: Vec<CarrierDoor>,
    /// Which carrier worked on which network, the newest first.
    pub ways: Vec<(String, Carrier)>,
    /// The secret that the edge handed to this agent. Where it is present no
    /// other is ever tried.
    pub secret: Option<Psk>,
    /// How to join, kept from `adit join` until the edge hands out a secret.
    pub join: Option<JoinString>,
}

/// What `adit join` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    /// The first meeting with this edge.
    New,
    /// The edge has already handed this agent a secret, which is kept; the
    /// join string gave its addresses only.
    Known,
}

/// Networks that are remembered of one edge.
pub(crate) const WAYS: usize = 16;

#[derive(Serialize, Deserialize)]
struct OnDisk {
    format: u32,
    edge: String,
    addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    doors: Vec<DoorOnDisk>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ways: Vec<WayOnDisk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<SecretText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    join: Option<SecretText>,
}

#[derive(Serialize, Deserialize)]
struct DoorOnDisk {
    carrier: String,
    port: u16,
}

#[derive(Serialize, Deserialize)]
struct WayOnDisk {
    network: String,
    carrier: String,
}

const JOINED: &str = "joined";

impl DataFolder {
    /// What is remembered of `edge`.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn edge(&self, edge: &PublicKey) -> Result<Option<EdgeRecord>, StateError> {
        read_record(&self.record(edge))
    }

    /// Every edge that is remembered.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn known_edges(&self) -> Result<Vec<EdgeRecord>, StateError> {
        let paths = file::list(&self.edges())?;
        let records = paths.iter().map(|path| read_record(path));
        records.filter_map(Result::transpose).collect()
    }

    /// The edge that `adit join` named last.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn joined(&self) -> Result<Option<EdgeRecord>, StateError> {
        let path = self.root.join(JOINED);
        let Some(text) = file::read(&path)? else {
            return Ok(None);
        };
        let edge = text
            .parse()
            .map_err(|_| damaged(&path, "not the key of an edge"))?;
        self.edge(&edge)
    }

    /// Makes the join string's edge the one that is dialled by default.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn join(&self, join: &JoinString) -> Result<Joining, StateError> {
        let _lock = self.lock()?;
        let known = self.edge(&join.edge)?;
        let ways = known.iter().flat_map(|known| known.ways.clone()).collect();
        let secret = known.and_then(|known| known.secret);
        let joining = match secret {
            Some(_) => Joining::Known,
            None => Joining::New,
        };
        self.write_record(&EdgeRecord {
            edge: join.edge,
            addresses: join.addresses.clone(),
            doors: join.doors.clone(),
            ways,
            join: secret.is_none().then(|| join.clone()),
            secret,
        })?;
        let line = format!("{}\n", join.edge);
        file::write(&self.root.join(JOINED), line.as_bytes())?;
        Ok(joining)
    }

    /// Saves the secret that an edge handed to this agent; the join string is
    /// dropped, as it is not needed again.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn save_secret(
        &self,
        edge: &PublicKey,
        addresses: &[String],
        secret: &Psk,
    ) -> Result<(), StateError> {
        let _lock = self.lock()?;
        let known = self.edge(edge)?;
        let (doors, ways) = known.map_or_else(Default::default, |known| (known.doors, known.ways));
        self.write_record(&EdgeRecord {
            edge: *edge,
            addresses: addresses.to_vec(),
            doors,
            ways,
            secret: Some(secret.clone()),
            join: None,
        })
    }

    /// Remembers which doors an edge has and what worked on a network, where
    /// the edge is remembered at all.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn save_way(
        &self,
        edge: &PublicKey,
        doors: &[CarrierDoor],
        way: Option<(&str, Carrier)>,
    ) -> Result<(), StateError> {
        let _lock = self.lock()?;
        let Some(mut record) = self.edge(edge)? else {
            return Ok(());
        };
        let newest = record.ways.first();
        let newest = newest.map(|(network, carrier)| (network.as_str(), *carrier));
        if (way.is_none() || newest == way) && record.doors == doors {
            return Ok(());
        }
        record.doors = doors.to_vec();
        if let Some((network, carrier)) = way {
            record.ways.retain(|(net, _)| net != network);
            record.ways.insert(0, (network.to_owned(), carrier));
            record.ways.truncate(WAYS);
        }
        self.write_record(&record)
    }

    /// Forgets an edge, its secret and, where it was the joined one, that too.
    /// `false` where nothing was known of it. A damaged record goes too: this
    /// is how its owner says so.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn forget(&self, edge: &PublicKey) -> Result<bool, StateError> {
        let _lock = self.lock()?;
        let known = file::remove(&self.record(edge))?;
        let joined = self.root.join(JOINED);
        let points_here = file::read(&joined)?.is_some_and(|text| text.parse() == Ok(*edge));
        if points_here {
            file::remove(&joined)?;
        }
        Ok(known || points_here)
    }

    /// File names are base32: one spelling on file systems that fold case.
    pub(crate) fn record(&self, edge: &PublicKey) -> PathBuf {
        let key = data_encoding::BASE32_NOPAD.encode(&edge.0);
        self.edges()
            .join(format!("{}.json", key.to_ascii_lowercase()))
    }

    fn write_record(&self, record: &EdgeRecord) -> Result<(), StateError> {
        let path = self.record(&record.edge);
        let on_disk = OnDisk {
            format: FORMAT,
            edge: record.edge.to_string(),
            addresses: record.addresses.clone(),
            doors: record.doors.iter().map(DoorOnDisk::of).collect(),
            ways: record.ways.iter().map(WayOnDisk::of).collect(),
            secret: record
                .secret
                .as_ref()
                .map(|secret| SecretText(secret.expose().to_owned())),
            join: record.join.as_ref().map(|join| SecretText(join.expose())),
        };
        file::write_json(&path, &on_disk)
    }
}

fn read_record(path: &Path) -> Result<Option<EdgeRecord>, StateError> {
    let Some(text) = file::read_secret(path)? else {
        return Ok(None);
    };
    let on_disk: OnDisk =
        serde_json::from_str(&text).map_err(|_| damaged(path, "not a record of an edge"))?;
    check_format(path, on_disk.format)?;
    let edge = on_disk
        .edge
        .parse()
        .map_err(|_| damaged(path, "not the key of an edge"))?;
    let secret = on_disk
        .secret
        .as_ref()
        .map(|text| Psk::parse(&text.0))
        .transpose();
    let join = on_disk.join.as_ref().map(|text| text.0.parse()).transpose();
    Ok(Some(EdgeRecord {
        edge,
        addresses: on_disk.addresses,
        // What a later version wrote and this one does not know is of no use.
        doors: on_disk.doors.iter().filter_map(DoorOnDisk::door).collect(),
        ways: on_disk
            .ways
            .into_iter()
            .filter_map(WayOnDisk::way)
            .collect(),
        secret: secret.map_err(|_| damaged(path, "not a secret"))?,
        join: join.map_err(|_| damaged(path, "not a join string"))?,
    }))
}

impl DoorOnDisk {
    fn of(door: &CarrierDoor) -> Self {
        Self {
            carrier: door.carrier.to_string(),
            port: door.port,
        }
    }

    fn door(&self) -> Option<CarrierDoor> {
        let carrier = self.carrier.parse().ok()?;
        let port = self.port;
        (port > 0).then_some(CarrierDoor { carrier, port })
    }
}

impl WayOnDisk {
    fn of((network, carrier): &(String, Carrier)) -> Self {
        Self {
            network: network.clone(),
            carrier: carrier.to_string(),
        }
    }

    fn way(self) -> Option<(String, Carrier)> {
        Some((self.network, self.carrier.parse().ok()?))
    }
}
