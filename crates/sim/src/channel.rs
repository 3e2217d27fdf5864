//! Sealed frames of a data channel, on either side.

use adit_link_proto::{OpenError, Opener, Sealer};
use adit_wire::{FrameKind, LENGTH};

/// A data channel's two directions and its unfinished input.
#[derive(Debug)]
pub(crate) struct Sealed {
    sealer: Sealer,
    opener: Opener,
    input: Vec<u8>,
}

/// An opened frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Sealed {
    pub(crate) fn new((sealer, opener): (Sealer, Opener)) -> Self {
        Self {
            sealer,
            opener,
            input: Vec::new(),
        }
    }

    /// Appends a sealed frame to `out`.
    pub(crate) fn seal(&mut self, kind: FrameKind, stream: u32, body: &[u8], out: &mut Vec<u8>) {
        let sealed = self.sealer.append(kind, stream, body, out);
        sealed.expect("a simulated channel never ends its counter");
    }

    /// Opens every whole frame that is there now.
    pub(crate) fn open(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, OpenError> {
        self.input.extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(head) = self.input.first_chunk::<LENGTH>() {
            let length = Opener::frame_len(head)?;
            if self.input.len() < length {
                break;
            }
            let mut frame: Vec<u8> = self.input.drain(..length).collect();
            let opened = self.opener.open(&mut frame)?;
            frames.push(Frame {
                kind: opened.kind,
                stream: opened.stream,
                payload: frame[opened.payload].to_vec(),
            });
        }
        Ok(frames)
    }
}
