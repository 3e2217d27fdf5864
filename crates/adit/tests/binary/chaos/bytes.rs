//! The bytes that travel: each request has bodies that no other has, so that a
//! visitor can tell a wrong or a mixed answer from a right one and from the
//! beginning of a right one.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, Read};

/// A block of a body; each begins with its number.
const BLOCK: usize = 4096;

/// A body of this length for a token.
pub(super) fn body(token: &str, length: usize) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    token.hash(&mut hasher);
    let mut state = hasher.finish() | 1;
    let mut block = Vec::with_capacity(BLOCK);
    while block.len() < length.min(BLOCK) {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend(state.to_le_bytes());
    }
    let mut bytes = Vec::with_capacity(length + BLOCK);
    for number in 0..length.div_ceil(BLOCK) as u64 {
        bytes.extend_from_slice(&(state ^ number).to_le_bytes());
        bytes.extend_from_slice(&block[8..]);
    }
    bytes.truncate(length);
    bytes
}

/// A request or an answer as far as it came.
pub(super) struct Message {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// Whether it ended as its framing says.
    pub(super) whole: bool,
}

impl Message {
    /// The words of the first line.
    pub(super) fn words(&self) -> Vec<&str> {
        self.head.lines().next().unwrap_or("").split(' ').collect()
    }

    /// The value of a header, whose name is in lower case.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Reads a message; `None` where the connection ends before its head does.
pub(super) fn read(from: &mut impl BufRead) -> Option<Message> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if !matches!(from.read_line(&mut head), Ok(1..)) {
            return None;
        }
    }
    let mut message = Message {
        head,
        body: Vec::new(),
        whole: false,
    };
    message.whole = if message.field("transfer-encoding").is_some() {
        chunks(from, &mut message.body).is_some()
    } else {
        let length = message.field("content-length").and_then(|n| n.parse().ok());
        exactly(from, length.unwrap_or(0), &mut message.body).is_some()
    };
    Some(message)
}

fn exactly(from: &mut impl BufRead, length: usize, to: &mut Vec<u8>) -> Option<()> {
    let goal = to.len() + length;
    // What came before a failure counts.
    let _ = from.take(length as u64).read_to_end(to);
    (to.len() == goal).then_some(())
}

fn chunks(from: &mut impl BufRead, to: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        let size = usize::from_str_radix(line.strip_suffix("\r\n")?, 16).ok()?;
        exactly(from, size, to)?;
        let mut end = Vec::new();
        exactly(from, 2, &mut end)?;
        if size == 0 {
            return Some(());
        }
    }
}
