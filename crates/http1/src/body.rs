//! Where a message body ends (RFC 9112 §6), over slices of any size.

use std::ops::Range;

use crate::BodyError;
use crate::chunk::Chunked;

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body, whatever the fields say.
    None,
    /// Exactly this many bytes.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// Until the sender ends its direction (responses only).
    UntilClose,
}

/// What one call of [`Body::decode`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with, data included.
    pub consumed: usize,
    /// Where in the input data lies; empty when there is none.
    pub data: Range<usize>,
    /// Where in the input the trailer section lies, its last empty line
    /// included; only ever with `done`.
    pub trailers: Option<Range<usize>>,
    /// The body is complete; the rest of the input belongs to what follows.
    pub done: bool,
}

impl Step {
    pub(crate) fn framing(consumed: usize) -> Self {
        Self {
            consumed,
            ..Self::default()
        }
    }

    pub(crate) fn data(start: usize, end: usize) -> Self {
        Self {
            consumed: end,
            data: start..end,
            ..Self::default()
        }
    }

    pub(crate) fn end(consumed: usize, trailers: Option<Range<usize>>) -> Self {
        Self {
            consumed,
            trailers,
            done: true,
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

/// A decoder of one body.
///
/// Feed it the received bytes from the first one after the head; drop
/// `consumed` bytes after each step. A step that consumed nothing, holds no
/// data and is not done wants more input than it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body(State);

impl Body {
    /// A decoder at the body's first byte.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::None => State::Length(0),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Chunked::new()),
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Takes the next piece of the body from `input`.
    ///
    /// # Errors
    /// [`BodyError`] when the input breaks the framing: nothing after it can
    /// be trusted, both connections must be closed.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        match &mut self.0 {
            State::Length(left) => {
                let take = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                *left -= take as u64;
                let mut step = Step::data(0, take);
                step.done = *left == 0;
                Ok(step)
            }
            State::Chunked(chunked) => chunked.decode(input),
            State::UntilClose => Ok(Step::data(0, input.len())),
        }
    }

    /// Up to `most` bytes of a body whose length is known went by unseen: how
    /// many of them were its own.
    pub fn skip(&mut self, most: u64) -> u64 {
        let State::Length(left) = &mut self.0 else {
            return 0;
        };
        let skipped = most.min(*left);
        *left -= skipped;
        skipped
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match &self.0 {
            State::Length(left) => *left == 0,
            State::Chunked(chunked) => chunked.is_done(),
            State::UntilClose => false,
        }
    }

    /// Bytes that a body of known length still lacks; `None` for the others.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match &self.0 {
            State::Length(left) => Some(*left),
            State::Chunked(_) | State::UntilClose => None,
        }
    }

    /// The sender ended its direction after the bytes decoded so far.
    ///
    /// # Errors
    /// [`BodyError::Truncated`] when the body promised more.
    pub fn finish(&mut self) -> Result<(), BodyError> {
        if self.0 == State::UntilClose {
            self.0 = State::Length(0);
        }
        if self.is_done() {
            Ok(())
        } else {
            Err(BodyError::Truncated)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Data, trailers, and what was left.
    type Decoded = (Vec<u8>, Vec<u8>, Vec<u8>);

    /// What is decoded from input in pieces of given sizes.
    fn decode(
        framing: Framing,
        input: &[u8],
        mut size: impl FnMut() -> usize,
    ) -> Result<Decoded, BodyError> {
        let mut body = Body::new(framing);
        let (mut data, mut trailers, mut held, mut fed) = (vec![], vec![], vec![], 0);
        loop {
            let step = body.decode(&held)?;
            data.extend_from_slice(&held[step.data.clone()]);
            if let Some(range) = &step.trailers {
                trailers.extend_from_slice(&held[range.clone()]);
            }
            held.drain(..step.consumed);
            if step.done {
                held.extend_from_slice(&input[fed..]);
                return Ok((data, trailers, held));
            }
            if step.consumed == 0 {
                if fed == input.len() {
                    body.finish()?;
                    return Ok((data, trailers, held));
                }
                let end = (fed + size().max(1)).min(input.len());
                held.extend_from_slice(&input[fed..end]);
                fed = end;
            }
        }
    }

    /// Input, data, trailers, rest.
    type Good = (&'static [u8], &'static [u8], &'static [u8], &'static [u8]);

    const GOOD: &[Good] = &[
        (b"0\r\n\r\n", b"", b"", b""),
        (b"3\r\nabc\r\n0\r\n\r\nGET", b"abc", b"", b"GET"),
        (b"00a\r\n0123456789\r\n000\r\n\r\n", b"0123456789", b"", b""),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b"", b""),
        (b"1;a\r\nx\r\n0;b=c\r\n\r\n", b"x", b"", b""),
        (
            b"1;a=b;c=\"d;\\\"\x80 e\"\r\nx\r\n0\r\n\r\n",
            b"x",
            b"",
            b"",
        ),
        (
            b"1\r\nx\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\nrest",
            b"x",
            b"X-Sum: 1\r\nY: 2\r\n\r\n",
            b"rest",
        ),
    ];

    const BAD: &[&[u8]] = &[
        b"\r\n",
        b"g\r\n",
        b" 1\r\nx\r\n",
        b"1 \r\nx\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1\nx\r\n",
        b"1\r\nxy",
        b"1\r\nx\n0\r\n\r\n",
        b"1\rx",
        b"1000000000000000\r\n",
        b"1;\r\nx\r\n",
        b"1;=\r\n",
        b"1;a=\r\nx\r\n",
        b"1;a\nx\r\n0\r\n\r\n",
        b"1;a=\"b\nc\"\r\n",
        b"1;a=\"b\r\n",
        b"1;a=\"b\"c\r\n",
        b"1 ;a\r\n",
        b"1; a\r\n",
        b"1;a\x00\r\n",
        b"0\r\n\n",
        b"0\r\n\rX",
        b"0\r\nX: 1\n\r\n",
        b"0\r\nX: 1\r\n\n",
        b"5\r\nabc",
        b"5\r\nabcde\r\n",
        b"0\r\n",
        b"0\r\nX: 1\r\n",
        b"",
    ];

    #[test]
    fn any_split_gives_the_same_body() {
        for &(input, data, trailers, rest) in GOOD {
            for size in 1..=input.len() {
                let got = decode(Framing::Chunked, input, || size).unwrap();
                let (d, t, r) = (&got.0[..], &got.1[..], &got.2[..]);
                assert_eq!((d, t, r), (data, trailers, rest), "{size}");
            }
        }
    }

    #[test]
    fn what_breaks_the_coding_is_refused_at_any_split() {
        for input in BAD {
            for size in 1..=input.len().max(1) {
                let got = decode(Framing::Chunked, input, || size);
                assert!(got.is_err(), "{:?} {size}", String::from_utf8_lossy(input));
            }
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let line = |n: usize| [b"1;".as_slice(), &vec![b'a'; n], b"\r\nx\r\n0\r\n\r\n"].concat();
        assert!(decode(Framing::Chunked, &line(200), || 7).is_ok());
        assert!(decode(Framing::Chunked, &line(300), || 7).is_err());
        let trailers = |n: usize| [b"0\r\nX: ".as_slice(), &vec![b'a'; n], b"\r\n\r\n"].concat();
        assert!(decode(Framing::Chunked, &trailers(8000), || 999).is_ok());
        assert!(decode(Framing::Chunked, &trailers(9000), || 999).is_err());
        assert!(decode(Framing::Chunked, &trailers(9000), || 99_999).is_err());
    }

    #[test]
    fn lengths_and_ends() {
        let take = |framing, input: &[u8]| decode(framing, input, || 2);
        assert_eq!(take(Framing::Length(3), b"abcdef").unwrap().0, b"abc");
        assert_eq!(take(Framing::Length(3), b"abcdef").unwrap().2, b"def");
        assert_eq!(take(Framing::Length(3), b"ab"), Err(BodyError::Truncated));
        assert_eq!(take(Framing::None, b"ab").unwrap().2, b"ab");
        assert_eq!(take(Framing::UntilClose, b"abc").unwrap().0, b"abc");
    }

    proptest! {
        #[test]
        fn a_written_body_is_read_back(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            sizes in prop::collection::vec(1usize..50, 1..9),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                crate::write_chunk_head(&mut wire, chunk.len());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(crate::CHUNK_END);
            }
            wire.extend_from_slice(crate::LAST_CHUNK);
            let mut turn = sizes.iter().cycle();
            let got = decode(Framing::Chunked, &wire, || *turn.next().unwrap()).unwrap();
            prop_assert_eq!(got.0, chunks.concat());
            prop_assert!(got.2.is_empty());
        }

        #[test]
        fn any_bytes_give_the_same_answer_whole_or_split(
            input in prop::collection::vec(
                prop::sample::select(b"0123aF;=\"\\\r\n\t x:\0\x80".to_vec()), 0..60),
            sizes in prop::collection::vec(1usize..5, 1..9),
        ) {
            let mut turn = sizes.iter().cycle();
            let split = decode(Framing::Chunked, &input, || *turn.next().unwrap());
            let whole = decode(Framing::Chunked, &input, || usize::MAX / 2);
            prop_assert_eq!(split.is_ok(), whole.is_ok());
            if let (Ok(split), Ok(whole)) = (split, whole) {
                prop_assert_eq!(split, whole);
            }
        }
    }
}
