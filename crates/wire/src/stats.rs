//! Counters that both sides may ask of each other.

use adit_model::TunnelId;

use crate::field::{DecodeError, EncodeError, Field, each, need, once, put, put_fixed};

/// Most tunnels in one [`Stats`].
pub const MAX_STAT_TUNNELS: usize = 1024;

/// What was carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Visitor streams open now.
    pub visitors_now: u32,
    /// Visitor streams since the start.
    pub visitors_ever: u64,
    /// Bytes from visitors to the service.
    pub bytes_in: u64,
    /// Bytes from the service to visitors.
    pub bytes_out: u64,
}

impl Counters {
    fn to_bytes(self) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[..4].copy_from_slice(&self.visitors_now.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.visitors_ever.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.bytes_in.to_be_bytes());
        bytes[20..].copy_from_slice(&self.bytes_out.to_be_bytes());
        bytes
    }

    fn read(field: Field<'_>) -> Result<Self, DecodeError> {
        let bytes: [u8; 28] = field.array()?;
        let long = |at: usize| {
            let mut part = [0; 8];
            part.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(part)
        };
        Ok(Self {
            visitors_now: u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            visitors_ever: long(4),
            bytes_in: long(12),
            bytes_out: long(20),
        })
    }
}

/// What one tunnel carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelCounters {
    /// Which tunnel of this link.
    pub tunnel: TunnelId,
    /// Its counters.
    pub counters: Counters,
}

/// Statistics of one side about this link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// All tunnels of the link together.
    pub total: Counters,
    /// Each tunnel, at most [`MAX_STAT_TUNNELS`].
    pub tunnels: Vec<TunnelCounters>,
}

impl Stats {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.tunnels.len() > MAX_STAT_TUNNELS {
            return Err(EncodeError::BadField(2));
        }
        put_fixed(out, 1, self.total.to_bytes());
        for tunnel in &self.tunnels {
            let mut body = Vec::with_capacity(38);
            put_fixed(&mut body, 1, tunnel.tunnel.0.to_be_bytes());
            put_fixed(&mut body, 2, tunnel.counters.to_bytes());
            put(out, 2, &body)?;
        }
        Ok(())
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (mut total, mut tunnels) = (None, Vec::new());
        each(body, |field| match field.tag {
            1 => once(&mut total, 1, Counters::read(field)?),
            2 if tunnels.len() == MAX_STAT_TUNNELS => Err(DecodeError::TooMany(2)),
            2 => {
                tunnels.push(tunnel(field.value)?);
                Ok(())
            }
            _ => Ok(()),
        })?;
        Ok(Self {
            total: need(total, 1)?,
            tunnels,
        })
    }
}

fn tunnel(body: &[u8]) -> Result<TunnelCounters, DecodeError> {
    let (mut tunnel, mut counters) = (None, None);
    each(body, |field| match field.tag {
        1 => once(&mut tunnel, 1, TunnelId(field.u32()?)),
        2 => once(&mut counters, 2, Counters::read(field)?),
        _ => Ok(()),
    })?;
    Ok(TunnelCounters {
        tunnel: need(tunnel, 1)?,
        counters: need(counters, 2)?,
    })
}
