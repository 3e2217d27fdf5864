//! Byte buffers that exist only while bytes flow.
//!
//! A buffer comes from a pool of the current thread when the first byte
//! arrives and goes back when it is empty; it grows with the flow through
//! three sizes. Memory is written once, at allocation, never zeroed again.

use std::cell::RefCell;

use adit_wire::{HEAD, MAX_PAYLOAD, TAG};

/// The three sizes: a small head, one whole frame, several frames a syscall.
const SIZES: [usize; 3] = [8 * 1024, MAX_PAYLOAD + HEAD + TAG + 4096, 288 * 1024];
/// How many of each a thread keeps: at most 512 KiB, 1.1 MiB and 2.3 MiB.
const KEPT: [usize; 3] = [64, 16, 8];

thread_local! {
    static POOL: RefCell<[Vec<Vec<u8>>; 3]> = const { RefCell::new([Vec::new(), Vec::new(), Vec::new()]) };
}

/// A buffer with a readable part `start..end`.
#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Buffer {
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    pub(crate) fn all_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    pub(crate) fn all(&self) -> &[u8] {
        &self.bytes
    }

    /// The room behind the readable part.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    /// Makes the room behind the readable part at least `wanted`: by taking a
    /// buffer, by moving the readable part to the front, or by growing.
    /// Returns how far the readable part moved towards the front.
    pub(crate) fn reserve(&mut self, wanted: usize) -> usize {
        if self.bytes.len() - self.end >= wanted {
            return 0;
        }
        let moved = self.start;
        if self.bytes.len() - self.len() >= wanted {
            self.bytes.copy_within(self.start..self.end, 0);
        } else {
            let mut larger = take(self.len() + wanted);
            larger[..self.end - self.start].copy_from_slice(&self.bytes[self.start..self.end]);
            give(std::mem::replace(&mut self.bytes, larger));
        }
        self.end -= moved;
        self.start = 0;
        moved
    }

    /// Gives the memory back when nothing is readable.
    pub(crate) fn release_if_empty(&mut self) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
            give(std::mem::take(&mut self.bytes));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.bytes));
    }
}

fn take(least: usize) -> Vec<u8> {
    let Some(class) = SIZES.iter().position(|size| *size >= least) else {
        return vec![0; least];
    };
    let pooled = POOL.with(|pool| pool.borrow_mut()[class].pop());
    pooled.unwrap_or_else(|| vec![0; SIZES[class]])
}

fn give(bytes: Vec<u8>) {
    let Some(class) = SIZES.iter().position(|size| *size == bytes.len()) else {
        return;
    };
    // The pool is gone while its thread ends.
    let _ = POOL.try_with(|pool| {
        let kept = &mut pool.borrow_mut()[class];
        if kept.len() < KEPT[class] {
            kept.push(bytes);
        }
    });
}

/// How much to ask of a socket at once: grows while reads come back full,
/// shrinks when they come back small.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadSize(u8);

impl ReadSize {
    pub(crate) fn bytes(self) -> usize {
        SIZES[usize::from(self.0)]
    }

    /// Learns from a read of `got` bytes into `room`.
    pub(crate) fn learn(&mut self, got: usize, room: usize) {
        if got == room && self.0 < 2 {
            self.0 += 1;
        } else if self.0 > 0 && got < SIZES[usize::from(self.0) - 1] / 4 {
            self.0 -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserve_keeps_what_is_readable() {
        let mut buffer = Buffer::default();
        buffer.reserve(10);
        buffer.room()[..3].copy_from_slice(b"abc");
        buffer.end += 3;
        buffer.start += 1;
        let moved = buffer.reserve(buffer.bytes.len() - 2);
        assert_eq!((moved, buffer.filled()), (1, &b"bc"[..]));
        buffer.reserve(SIZES[0]);
        assert_eq!(buffer.filled(), b"bc");
        assert_eq!(buffer.bytes.len(), SIZES[1]);
        buffer.start = buffer.end;
        buffer.release_if_empty();
        assert_eq!(buffer.bytes.len(), 0);
    }

    #[test]
    fn read_size_follows_the_flow() {
        let mut size = ReadSize::default();
        for _ in 0..3 {
            size.learn(size.bytes(), size.bytes());
        }
        assert_eq!(size.bytes(), SIZES[2]);
        for _ in 0..3 {
            size.learn(100, size.bytes());
        }
        assert_eq!(size.bytes(), SIZES[0]);
    }
}
