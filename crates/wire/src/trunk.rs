//! The layout of a trunk: what stands between the frames of its lines.
//!
//! A trunk is one connection that carries the channels of a near link together.
//! Its bytes are a row of pieces, each a head of [`TRUNK_HEAD`] bytes,
//! `kind u8 | 0 | count u16 BE | line u32 BE`, and behind [`PieceKind::Data`]
//! `count` bytes of that line. Nothing here is secret or proved: what the lines
//! carry is sealed.

/// Bytes of a piece's head.
pub const TRUNK_HEAD: usize = 8;
/// What one side may have sent on a line and the other's reader has not taken,
/// in bytes.
pub const LINE_WINDOW: usize = 128 * 1024;
/// Bytes that one unit of [`PieceKind::Credit`] stands for.
pub const CREDIT_UNIT: usize = 1024;

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// 1: bytes of a line, at least one.
    Data,
    /// 2: the line is over, both ways.
    Close,
    /// 3: the sender's reader took `count` units: so much more may be sent.
    Credit,
    /// 4: asks for a sign of life; of no line.
    Ping,
    /// 5: the sign; of no line.
    Pong,
    /// 6: the edge opens the line after the last one.
    Open,
}

/// The head of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub kind: PieceKind,
    /// The line, counted from 1; 0 where it is of none.
    pub line: u32,
    /// Bytes behind it, or units of credit; 0 otherwise.
    pub count: u16,
}

/// The head of a piece says what none can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed head on a trunk")]
pub struct BadPiece;

impl Piece {
    /// Reads a head.
    ///
    /// # Errors
    /// [`BadPiece`] when no sender writes it.
    pub fn parse(head: [u8; TRUNK_HEAD]) -> Result<Self, BadPiece> {
        let [kind, zero, c1, c2, l1, l2, l3, l4] = head;
        let kind = match kind {
            1 => PieceKind::Data,
            2 => PieceKind::Close,
            3 => PieceKind::Credit,
            4 => PieceKind::Ping,
            5 => PieceKind::Pong,
            6 => PieceKind::Open,
            _ => return Err(BadPiece),
        };
        let piece = Self {
            kind,
            line: u32::from_be_bytes([l1, l2, l3, l4]),
            count: u16::from_be_bytes([c1, c2]),
        };
        let of_line = !matches!(kind, PieceKind::Ping | PieceKind::Pong);
        let counts = matches!(kind, PieceKind::Data | PieceKind::Credit);
        let fits = zero == 0 && of_line == (piece.line > 0) && counts == (piece.count > 0);
        fits.then_some(piece).ok_or(BadPiece)
    }

    /// The head's bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; TRUNK_HEAD] {
        let kind = match self.kind {
            PieceKind::Data => 1,
            PieceKind::Close => 2,
            PieceKind::Credit => 3,
            PieceKind::Ping => 4,
            PieceKind::Pong => 5,
            PieceKind::Open => 6,
        };
        let [c1, c2] = self.count.to_be_bytes();
        let [l1, l2, l3, l4] = self.line.to_be_bytes();
        [kind, 0, c1, c2, l1, l2, l3, l4]
    }

    /// Bytes of its line that follow the head.
    #[must_use]
    pub fn payload(self) -> usize {
        match self.kind {
            PieceKind::Data => self.count.into(),
            _ => 0,
        }
    }
}

/// Takes the bytes of a trunk apart, in whatever portions they come.
#[derive(Debug, Default)]
pub struct Pieces {
    /// The line of the payload that is under way, and how much is to come.
    under_way: (u32, usize),
}

/// What the next bytes of a trunk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first `bytes` of the input belong to this line.
    Payload {
        /// Which line.
        line: u32,
        /// How many, at least one.
        bytes: usize,
    },
    /// A head without payload, of [`TRUNK_HEAD`] bytes.
    Head(Piece),
    /// The head of a payload that follows, of [`TRUNK_HEAD`] bytes.
    Opening(Piece),
    /// More input is needed.
    Missing,
}

impl Pieces {
    /// What `input` begins with; it counts as taken.
    ///
    /// # Errors
    /// See [`Piece::parse`].
    pub fn next(&mut self, input: &[u8]) -> Result<Part, BadPiece> {
        let (line, left) = self.under_way;
        if left > 0 {
            let bytes = left.min(input.len());
            self.under_way.1 -= bytes;
            return Ok(match bytes {
                0 => Part::Missing,
                bytes => Part::Payload { line, bytes },
            });
        }
        let Some(head) = input.first_chunk() else {
            return Ok(Part::Missing);
        };
        let piece = Piece::parse(*head)?;
        self.under_way = (piece.line, piece.payload());
        Ok(match piece.kind {
            PieceKind::Data => Part::Opening(piece),
            _ => Part::Head(piece),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_read_back_and_odd_ones_are_refused() {
        for (kind, line, count) in [
            (PieceKind::Data, 1, 1),
            (PieceKind::Data, u32::MAX, u16::MAX),
            (PieceKind::Close, 7, 0),
            (PieceKind::Credit, 7, 64),
            (PieceKind::Ping, 0, 0),
            (PieceKind::Pong, 0, 0),
            (PieceKind::Open, 7, 0),
        ] {
            let piece = Piece { kind, line, count };
            assert_eq!(Piece::parse(piece.bytes()), Ok(piece));
        }
        for odd in [
            [0, 0, 0, 1, 0, 0, 0, 1],
            [6, 0, 0, 1, 0, 0, 0, 1],
            [6, 0, 0, 0, 0, 0, 0, 0],
            [7, 0, 0, 0, 0, 0, 0, 1],
            [1, 1, 0, 1, 0, 0, 0, 1],
            [1, 0, 0, 0, 0, 0, 0, 1],
            [1, 0, 0, 1, 0, 0, 0, 0],
            [2, 0, 0, 1, 0, 0, 0, 1],
            [3, 0, 0, 0, 0, 0, 0, 1],
            [4, 0, 0, 0, 0, 0, 0, 1],
            [5, 0, 0, 9, 0, 0, 0, 0],
        ] {
            assert_eq!(Piece::parse(odd), Err(BadPiece), "{odd:?}");
        }
    }

    #[test]
    fn pieces_come_in_any_portions() {
        let mut bytes = Vec::new();
        for (kind, line, count) in [
            (PieceKind::Data, 3, 5),
            (PieceKind::Credit, 2, 9),
            (PieceKind::Data, 4, 1),
            (PieceKind::Close, 3, 0),
        ] {
            let piece = Piece { kind, line, count };
            bytes.extend(piece.bytes());
            bytes.extend(vec![b'x'; piece.payload()]);
        }
        let whole = taken_apart(&bytes, bytes.len());
        assert_eq!(whole, "data 3: 5, credit 2: 9, data 4: 1, close 3: 0, ");
        for portion in 1..bytes.len() {
            assert_eq!(taken_apart(&bytes, portion), whole, "{portion}");
        }
    }

    /// What there is, read in portions of so many bytes.
    fn taken_apart(bytes: &[u8], portion: usize) -> String {
        let (mut pieces, mut waiting, mut told) = (Pieces::default(), Vec::new(), String::new());
        let mut payload = (0, 0);
        for part in bytes.chunks(portion) {
            waiting.extend_from_slice(part);
            loop {
                let taken = match pieces.next(&waiting).unwrap() {
                    Part::Missing => break,
                    Part::Opening(_) => TRUNK_HEAD,
                    Part::Head(piece) => {
                        let kind = format!("{:?}", piece.kind).to_lowercase();
                        told += &format!("{kind} {}: {}, ", piece.line, piece.count);
                        TRUNK_HEAD
                    }
                    Part::Payload { line, bytes } => {
                        payload = (line, payload.1 + bytes);
                        if pieces.under_way.1 == 0 {
                            told += &format!("data {line}: {}, ", payload.1);
                            payload = (0, 0);
                        }
                        bytes
                    }
                };
                waiting.drain(..taken);
            }
        }
        assert!(waiting.is_empty());
        told
    }
}
