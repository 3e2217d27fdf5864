//! The chunked coding (RFC 9112 §7.1), one byte at a time where it must be.
//!
//! Size lines are read by a state machine that never looks back, so that any
//! split of the input gives the same result. Extensions are checked against
//! their whole grammar, without the blanks that the RFC only tolerates, and
//! dropped. The trailer section is the one part that must lie whole in the
//! caller's input before it is consumed; it is bounded.

use crate::{BodyError, Step};

/// Most bytes of a size line's extensions.
const MAX_EXTENSION: u16 = 256;
/// Most bytes of a trailer section.
const MAX_TRAILERS: usize = 8192;
/// Most hexadecimal digits of a size: 2^60 bytes.
const MAX_DIGITS: u8 = 15;

/// What ends a chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";
/// What ends a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the size line of a chunk of `length` bytes.
pub fn write_chunk_head(out: &mut Vec<u8>, length: usize) {
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for at in (0..digits).rev() {
        let nibble = (length >> (at * 4)) & 0xf;
        out.push(b"0123456789abcdef"[nibble]);
    }
    out.extend_from_slice(CHUNK_END);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8, size: u64 },
    Extension { part: Part, used: u16, size: u64 },
    SizeFeed { size: u64 },
    Data { left: u64 },
    DataReturn,
    DataFeed,
    Trailers { scanned: u16 },
    Done,
}

/// Where in `;name=value` the machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    NameStart,
    Name,
    ValueStart,
    Value,
    Quoted,
    Escaped,
    AfterQuote,
}

/// A decoder of one chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunked(State);

impl Chunked {
    pub(crate) fn new() -> Self {
        Self(State::Size { digits: 0, size: 0 })
    }

    pub(crate) fn is_done(&self) -> bool {
        self.0 == State::Done
    }

    /// Consumes framing up to and including the next run of data.
    pub(crate) fn decode(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        let mut at = 0;
        loop {
            match self.0 {
                State::Data { left } => {
                    let rest = (input.len() - at) as u64;
                    let take = left.min(rest);
                    if take == 0 && left > 0 {
                        return Ok(Step::framing(at));
                    }
                    self.0 = if take == left {
                        State::DataReturn
                    } else {
                        State::Data { left: left - take }
                    };
                    let end = at + usize::try_from(take).unwrap_or(0);
                    return Ok(Step::data(at, end));
                }
                State::Trailers { scanned } => return self.trailers(input, at, scanned),
                State::Done => return Ok(Step::end(at, None)),
                line => {
                    let Some(&byte) = input.get(at) else {
                        return Ok(Step::framing(at));
                    };
                    self.0 = next(line, byte)?;
                    at += 1;
                }
            }
        }
    }

    fn trailers(&mut self, input: &[u8], start: usize, scanned: u16) -> Result<Step, BodyError> {
        let section = input.get(start..).unwrap_or_default();
        match section {
            [b'\r', b'\n', ..] => {
                self.0 = State::Done;
                return Ok(Step::end(start + 2, None));
            }
            [b'\n', ..] | [b'\r', _, ..] => return Err(BodyError::Trailers),
            _ => {}
        }
        let mut from = usize::from(scanned);
        while let Some(step) = section
            .get(from..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
        {
            let feed = from + step;
            if feed == 0 || section.get(feed - 1) != Some(&b'\r') {
                return Err(BodyError::Trailers);
            }
            if feed >= 3 && section.get(feed - 3..feed) == Some(b"\r\n\r") {
                self.0 = State::Done;
                let end = start + feed + 1;
                return if feed < MAX_TRAILERS {
                    Ok(Step::end(end, Some(start..end)))
                } else {
                    Err(BodyError::Trailers)
                };
            }
            from = feed + 1;
        }
        if section.len() > MAX_TRAILERS {
            return Err(BodyError::Trailers);
        }
        let scanned = u16::try_from(section.len()).map_err(|_| BodyError::Trailers)?;
        self.0 = State::Trailers { scanned };
        Ok(Step::framing(start))
    }
}

/// The state after one byte of framing.
fn next(state: State, byte: u8) -> Result<State, BodyError> {
    let bad = Err(BodyError::ChunkLine);
    match state {
        State::Size { digits, size } => match (byte, char::from(byte).to_digit(16)) {
            (_, Some(_)) if digits == MAX_DIGITS => bad,
            (_, Some(digit)) => Ok(State::Size {
                digits: digits + 1,
                size: size * 16 + u64::from(digit),
            }),
            (b'\r', None) if digits > 0 => Ok(State::SizeFeed { size }),
            (b';', None) if digits > 0 => Ok(State::Extension {
                part: Part::NameStart,
                used: 0,
                size,
            }),
            _ => bad,
        },
        State::Extension { used, .. } if used == MAX_EXTENSION => bad,
        State::Extension { part, used, size } => match extension(part, byte) {
            Some(Some(part)) => Ok(State::Extension {
                part,
                used: used + 1,
                size,
            }),
            Some(None) => Ok(State::SizeFeed { size }),
            None => bad,
        },
        State::SizeFeed { size } => match (byte, size) {
            (b'\n', 0) => Ok(State::Trailers { scanned: 0 }),
            (b'\n', left) => Ok(State::Data { left }),
            _ => bad,
        },
        State::DataReturn if byte == b'\r' => Ok(State::DataFeed),
        State::DataFeed if byte == b'\n' => Ok(State::Size { digits: 0, size: 0 }),
        State::DataReturn | State::DataFeed => Err(BodyError::ChunkEnd),
        State::Data { .. } | State::Trailers { .. } | State::Done => Ok(state),
    }
}

/// The part after one byte of an extension: `Some(None)` at the line's end.
fn extension(part: Part, byte: u8) -> Option<Option<Part>> {
    let token = crate::name::is_token_byte(byte);
    let next = match (part, byte) {
        (Part::NameStart | Part::Name, _) if token => Part::Name,
        (Part::Name, b'=') => Part::ValueStart,
        (Part::ValueStart, b'"') => Part::Quoted,
        (Part::ValueStart | Part::Value, _) if token => Part::Value,
        (Part::Name | Part::Value | Part::AfterQuote, b';') => Part::NameStart,
        (Part::Name | Part::Value | Part::AfterQuote, b'\r') => return Some(None),
        (Part::Quoted, b'"') => Part::AfterQuote,
        (Part::Quoted, b'\\') => Part::Escaped,
        (Part::Quoted | Part::Escaped, b'\t' | b' '..=b'~' | 0x80..) => Part::Quoted,
        _ => return None,
    };
    Some(Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_lines_round_trip() {
        for length in [1, 9, 10, 15, 16, 255, 256, 65_535, 65_536, usize::MAX >> 8] {
            let mut out = Vec::new();
            write_chunk_head(&mut out, length);
            assert_eq!(out, format!("{length:x}\r\n").into_bytes());
        }
        let mut out = Vec::new();
        write_chunk_head(&mut out, 0);
        assert_eq!(out, b"0\r\n");
    }
}
