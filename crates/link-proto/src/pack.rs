//! Compressed frames: LZ4 blocks behind their plain length.
//!
//! Each direction of a stream has a [`Packer`], which decides frame by frame
//! whether a try is worth its time and keeps the result only where it saves
//! more than a sixteenth. Data that does not compress costs next to nothing:
//! a sample of its bytes is looked at before, and after a try in vain the next
//! frames go as they are: 2, then 4, 8, up to 64.
//!
//! Invariants: no block is longer than the bytes that it stands for; nothing
//! is unpacked into more than [`MAX_PAYLOAD`] bytes, and the room for it is
//! known before anything is taken.

use adit_wire::{Compression, MAX_PAYLOAD};
use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
};

/// Bytes of the plain length in front of a block.
pub const PLAIN_LENGTH: usize = 4;

/// Shorter frames go as they are: keystrokes and their echoes.
const LEAST: usize = 128;
/// Frames from this length on are sampled before a try.
const SAMPLED: usize = 1024;
/// Bytes of a sample.
const SAMPLE: usize = 256;
/// Different values among them from which on a try is in vain. Bytes that are
/// all alike likely give 162 ± 5, text about 50, programs about 110.
const TOO_MANY: u32 = 144;
/// Most frames that are not tried after tries in vain.
const LONGEST_BREAK: u8 = 64;

/// What packing works in: one a thread serves every stream of it.
pub struct Scratch {
    table: CompressTable,
    out: Box<[u8]>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            // A full frame is one byte too long for the small table.
            table: CompressTable::large(),
            out: vec![0; PLAIN_LENGTH + get_maximum_output_size(MAX_PAYLOAD)].into(),
        }
    }
}

/// Decides for one direction of one stream which frames are packed.
#[derive(Clone, Copy, Debug)]
pub struct Packer {
    policy: Compression,
    /// Frames that still go as they are.
    skip: u8,
    /// Length of the last break.
    pause: u8,
}

impl Packer {
    /// `None` where nothing is ever packed.
    #[must_use]
    pub fn new(policy: Compression) -> Option<Self> {
        (policy != Compression::Off).then_some(Self {
            policy,
            skip: 0,
            pause: 0,
        })
    }

    /// The payload to send instead of `plain`, with [`adit_wire::FLAG_LZ4`] set; `None`
    /// where it goes as it is. Nothing is allocated.
    #[inline]
    pub fn pack<'s>(&mut self, plain: &[u8], scratch: &'s mut Scratch) -> Option<&'s [u8]> {
        if plain.len() < LEAST || plain.len() > MAX_PAYLOAD || !self.is_worth(plain) {
            return None;
        }
        let length = u32::try_from(plain.len()).ok()?;
        let (head, block) = scratch.out.split_first_chunk_mut::<PLAIN_LENGTH>()?;
        *head = length.to_be_bytes();
        let packed = compress_into_with_table(plain, block, &mut scratch.table);
        let packed = PLAIN_LENGTH + packed.ok()?;
        let pays = packed < plain.len() - plain.len() / 16;
        self.learn(pays);
        if pays {
            scratch.out.get(..packed)
        } else {
            None
        }
    }

    fn is_worth(&mut self, plain: &[u8]) -> bool {
        if self.policy == Compression::Always {
            return true;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if plain.len() >= SAMPLED && looks_random(plain) {
            self.learn(false);
            return false;
        }
        true
    }

    fn learn(&mut self, pays: bool) {
        self.pause = match self.pause {
            _ if pays => 0,
            0 => 2,
            pause => pause.saturating_mul(2).min(LONGEST_BREAK),
        };
        self.skip = self.pause;
    }
}

/// Whether a sample has about as many different bytes as random ones would.
fn looks_random(plain: &[u8]) -> bool {
    // An odd step: no column of a table is all that it sees.
    let step = (plain.len() / SAMPLE).saturating_sub(1) | 1;
    let mut seen = [0u64; 4];
    for byte in plain.iter().step_by(step).take(SAMPLE) {
        seen[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }
    seen.iter().map(|bits| bits.count_ones()).sum::<u32>() >= TOO_MANY
}

/// A compressed payload that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("compressed payload is broken")]
pub struct BadBlock;

/// How many bytes a compressed payload stands for: 1 to [`MAX_PAYLOAD`].
///
/// # Errors
/// [`BadBlock`], also where a payload says that it is longer than what it
/// stands for, which no sender makes.
pub fn plain_len(payload: &[u8]) -> Result<usize, BadBlock> {
    let (head, block) = payload
        .split_first_chunk::<PLAIN_LENGTH>()
        .ok_or(BadBlock)?;
    let length = usize::try_from(u32::from_be_bytes(*head)).map_err(|_| BadBlock)?;
    let fits = length <= MAX_PAYLOAD && !block.is_empty() && payload.len() < length;
    fits.then_some(length).ok_or(BadBlock)
}

/// Unpacks a payload into `out`, which is exactly [`plain_len`] long.
///
/// # Errors
/// [`BadBlock`] where the block gives more or fewer bytes; what `out` holds
/// then is not to be used.
pub fn unpack(payload: &[u8], out: &mut [u8]) -> Result<(), BadBlock> {
    if plain_len(payload)? != out.len() {
        return Err(BadBlock);
    }
    let block = payload.get(PLAIN_LENGTH..).ok_or(BadBlock)?;
    match decompress_into(block, out) {
        Ok(count) if count == out.len() => Ok(()),
        _ => Err(BadBlock),
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scratch")
    }
}

#[cfg(test)]
mod tests;
