//! Bodies of the handshake and of the edge's welcome.

use adit_model::{CarrierDoor, InstanceId, LinkId, Psk, PublicKey};

use crate::field::{
    DecodeError, EncodeError, MAX_TEXT, each, need, once, put, put_fixed, put_text,
};

/// Bytes of the `finished` field, which is the last of a [`Hello`].
pub const FINISHED_FIELD: usize = 3 + 32;
/// Most doors for other carriers.
const MAX_DOORS: usize = 16;
/// Most bytes of a version text.
const MAX_VERSION: usize = 64;

/// The authentication frame of either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who speaks.
    pub identity: PublicKey,
    /// Ed25519 over the side's label, the transcript and the identity.
    pub signature: [u8; 64],
    /// Which process of that identity; every agent says it, an edge does not.
    pub instance: Option<InstanceId>,
    /// The program's version, for people to read; every agent says it, an
    /// edge only after it has admitted the agent.
    pub version: Option<String>,
    /// MAC over everything before it, this body's earlier fields included.
    pub finished: [u8; 32],
}

impl Hello {
    /// Appends every field but `finished`.
    ///
    /// # Errors
    /// [`EncodeError`] when the version text is over 64 bytes or not plain.
    pub fn encode_unfinished(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_fixed(out, 1, self.identity.0);
        put_fixed(out, 2, self.signature);
        if let Some(instance) = self.instance {
            put_fixed(out, 3, instance.0);
        }
        match &self.version {
            Some(version) => put_text(out, 4, version, MAX_VERSION),
            None => Ok(()),
        }
    }

    /// Appends the last field.
    pub fn encode_finished(finished: [u8; 32], out: &mut Vec<u8>) {
        put_fixed(out, 5, finished);
    }

    /// Appends the whole body.
    ///
    /// # Errors
    /// As [`Hello::encode_unfinished`].
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode_unfinished(out)?;
        Self::encode_finished(self.finished, out);
        Ok(())
    }

    /// Reads a body. The `finished` field must be its last
    /// [`FINISHED_FIELD`] bytes, so that what it covers needs no second parse.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (mut identity, mut signature, mut finished) = (None, None, None);
        let (mut instance, mut version) = (None, None);
        each(body, |field| {
            if finished.is_some() {
                return Err(DecodeError::Malformed(5));
            }
            match field.tag {
                1 => once(&mut identity, 1, PublicKey(field.array()?)),
                2 => once(&mut signature, 2, field.array()?),
                3 => once(&mut instance, 3, InstanceId(field.array()?)),
                4 => once(&mut version, 4, field.string(MAX_VERSION)?),
                5 => once(&mut finished, 5, field.array()?),
                _ => Ok(()),
            }
        })?;
        Ok(Self {
            identity: need(identity, 1)?,
            signature: need(signature, 2)?,
            instance,
            version,
            finished: need(finished, 5)?,
        })
    }
}

/// The edge's decision. There is one refusal for every cause but one, which
/// only an agent meets whom nothing else keeps out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not admitted.
    Refused,
    /// Not admitted, only because as many are there as may be.
    Full,
    /// Admitted; [`AuthOk`] follows under the session keys.
    Accepted,
}

impl Verdict {
    /// Its body.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 1] {
        match self {
            Self::Refused => [0],
            Self::Accepted => [1],
            Self::Full => [2],
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] unless it is one byte, 0 to 2.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        match body {
            [0] => Ok(Self::Refused),
            [1] => Ok(Self::Accepted),
            [2] => Ok(Self::Full),
            _ => Err(DecodeError::Malformed(0)),
        }
    }
}

/// The edge's welcome: the first frame under the session keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthOk {
    /// The link's id on this edge process.
    pub link: LinkId,
    /// The agent's own secret, to be used from the next link on.
    pub agent_secret: Option<Psk>,
    /// Where tunnels appear, `{name}` in place of the name:
    /// `http://{name}.localhost:8080`.
    pub url_pattern: String,
    /// Milliseconds between heartbeats; not 0.
    pub heartbeat_ms: u32,
    /// Milliseconds until a silent link is dead; above `heartbeat_ms`.
    pub dead_ms: u32,
    /// Idle channels to keep at first.
    pub idle_channels: u16,
    /// Most channels that this link may have.
    pub max_channels: u16,
    /// The edge's program version, for people to read.
    pub version: String,
    /// Its doors for other carriers, on the host that was dialled; at most 16.
    pub doors: Vec<CarrierDoor>,
}

impl AuthOk {
    /// Appends the body.
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_fixed(out, 1, self.link.0.to_be_bytes());
        if let Some(secret) = &self.agent_secret {
            put(out, 2, secret.bytes())?;
        }
        put_text(out, 3, &self.url_pattern, MAX_TEXT)?;
        put_fixed(out, 4, self.heartbeat_ms.to_be_bytes());
        put_fixed(out, 5, self.dead_ms.to_be_bytes());
        put_fixed(out, 6, self.idle_channels.to_be_bytes());
        put_fixed(out, 7, self.max_channels.to_be_bytes());
        put_text(out, 8, &self.version, MAX_VERSION)?;
        if self.doors.len() > MAX_DOORS {
            return Err(EncodeError::BadField(9));
        }
        for door in &self.doors {
            put_fixed(out, 9, door.to_bytes());
        }
        Ok(())
    }

    /// Reads a body.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut doors = Vec::new();
        let (mut link, mut agent_secret, mut url_pattern) = (None, None, None);
        let (mut heartbeat, mut dead, mut version) = (None, None, None);
        let (mut idle, mut max) = (None, None);
        each(body, |field| match field.tag {
            1 => once(&mut link, 1, LinkId(field.u64()?)),
            2 => {
                let secret = Psk::parse(field.text(MAX_TEXT)?);
                once(
                    &mut agent_secret,
                    2,
                    secret.map_err(|_| DecodeError::Malformed(2))?,
                )
            }
            3 => once(&mut url_pattern, 3, field.string(MAX_TEXT)?),
            4 => once(&mut heartbeat, 4, field.u32()?),
            5 => once(&mut dead, 5, field.u32()?),
            6 => once(&mut idle, 6, field.u16()?),
            7 => once(&mut max, 7, field.u16()?),
            8 => once(&mut version, 8, field.string(MAX_VERSION)?),
            9 if doors.len() < MAX_DOORS => {
                // A carrier that this version does not know is no use to it.
                doors.extend(CarrierDoor::from_bytes(field.array()?));
                Ok(())
            }
            9 => Err(DecodeError::Malformed(9)),
            _ => Ok(()),
        })?;
        let (heartbeat_ms, dead_ms) = (need(heartbeat, 4)?, need(dead, 5)?);
        if heartbeat_ms == 0 || dead_ms <= heartbeat_ms {
            return Err(DecodeError::Malformed(5));
        }
        Ok(Self {
            link: need(link, 1)?,
            agent_secret,
            url_pattern: need(url_pattern, 3)?,
            heartbeat_ms,
            dead_ms,
            idle_channels: need(idle, 6)?,
            max_channels: need(max, 7)?,
            version: need(version, 8)?,
            doors,
        })
    }
}
