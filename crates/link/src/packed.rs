//! Compressed frames of a socket's streams.
//!
//! A frame is packed where it was written, by way of a scratch buffer that the
//! thread has once, and unpacked into a buffer of the pool, from which it is
//! lent out. Only what was opened is unpacked, and only on a stream whose
//! tunnel allows it.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::Ordering;

use adit_link_proto::{Packer, Scratch, plain_len, unpack};
use adit_wire::{Compression, HEAD};

use crate::inner::Inner;
use crate::stream::{Stream, StreamError};

thread_local! {
    /// Made when the thread first tries to pack a frame.
    static SCRATCH: RefCell<Option<Box<Scratch>>> = const { RefCell::new(None) };
}

impl Stream {
    /// Lets frames of this stream be compressed, in both directions, or not.
    /// Both sides know it from the stream's tunnel, before its first byte; on
    /// a plain socket it means nothing.
    pub fn compress(&mut self, compression: Compression) {
        if let Some(sealed) = &mut self.inner.sealed {
            sealed.packer = Packer::new(compression);
        }
    }
}

impl Inner {
    /// Packs the first `count` bytes that were written behind the head, when
    /// that pays; how many they are then.
    #[inline]
    pub(crate) fn pack(&mut self, count: usize) -> Option<usize> {
        let sealed = self.sealed.as_mut()?;
        let packer = sealed.packer.as_mut()?;
        let room = self.tx.room().get_mut(HEAD..HEAD + count)?;
        let packed = SCRATCH.with_borrow_mut(|scratch| {
            let scratch = scratch.get_or_insert_default();
            let packed = packer.pack(room, scratch)?;
            room.get_mut(..packed.len())?.copy_from_slice(packed);
            Some(packed.len())
        })?;
        let counters = &sealed.counters;
        let add = |counter: &std::sync::atomic::AtomicU64, bytes: usize| {
            counter.fetch_add(bytes as u64, Ordering::Relaxed);
        };
        add(&counters.unpacked_out, count);
        add(&counters.packed_out, packed);
        Some(packed)
    }

    /// Unpacks an opened payload behind what waits to be read.
    pub(crate) fn attach_packed(&mut self, payload: Range<usize>) -> Result<(), StreamError> {
        let Some(sealed) = &self.sealed else {
            return Err(StreamError::Protocol);
        };
        let packed = &self.rx.all()[payload.clone()];
        let count = plain_len(packed).map_err(|_| sealed.bad_frame())?;
        let waiting = self.rx.start..sealed.data_end;
        self.unpacked.reserve(waiting.len() + count);
        self.move_behind(waiting);
        let (from, into) = (&self.rx, &mut self.unpacked);
        let room = &mut into.room()[..count];
        if unpack(&from.all()[payload.clone()], room).is_err() {
            return Err(self
                .sealed
                .as_ref()
                .map_or(StreamError::Protocol, |sealed| sealed.bad_frame()));
        }
        into.end += count;
        if let Some(sealed) = &self.sealed {
            let counters = &sealed.counters;
            let (plain, packed) = (count as u64, payload.len() as u64);
            counters.unpacked_in.fetch_add(plain, Ordering::Relaxed);
            counters.packed_in.fetch_add(packed, Ordering::Relaxed);
        }
        self.consumed_opened();
        Ok(())
    }

    /// Attaches bytes that came as they are behind others that were unpacked.
    pub(crate) fn attach_behind(&mut self, payload: Range<usize>) {
        self.unpacked.reserve(payload.len());
        self.move_behind(payload);
        self.consumed_opened();
    }

    /// Copies bytes of the read buffer behind the unpacked ones.
    fn move_behind(&mut self, bytes: Range<usize>) {
        let count = bytes.len();
        self.unpacked.room()[..count].copy_from_slice(&self.rx.all()[bytes]);
        self.unpacked.end += count;
    }

    /// What was opened so far stands elsewhere.
    fn consumed_opened(&mut self) {
        if let Some(sealed) = &mut self.sealed {
            self.rx.start = sealed.raw;
            sealed.data_end = sealed.raw;
        }
    }
}

#[cfg(test)]
mod tests;
