//! The buffers of one exchange, kept between exchanges by the door.

use adit_http1::{RequestHead, ResponseHead, Trailers};

use adit_model::TunnelName;
use tokio::time::Instant;

use super::pump::Exchange;
use super::record::Draft;
use super::route::Opened;
use crate::backend::BackendId;
use crate::rules::Visit;

/// First size of a visitor's input buffer: a head and a small body.
const INPUT_SIZE: usize = 8 * 1024;
/// Room for a head of the largest size and a read of a long body behind it.
const INPUT_MAX: usize = 128 * 1024;
/// What a pooled buffer may hold while it waits.
const KEPT: usize = 32 * 1024;

/// What a visitor sent.
///
/// The head stays at the front for the whole exchange, because routing,
/// forwarding and the log read from it; the body behind it is dropped when
/// room is needed, and until then the request can be sent a second time.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// End of the head.
    kept: usize,
    at: usize,
    end: usize,
    /// No byte of the body was dropped.
    whole: bool,
    /// The last read filled all the room there was.
    filled: bool,
}

impl Input {
    /// Received bytes that were not used.
    pub(super) fn unread(&self) -> &[u8] {
        self.bytes.get(self.at..self.end).unwrap_or_default()
    }

    /// The bytes that [`Input::keep`] fixed.
    pub(super) fn head(&self) -> &[u8] {
        self.bytes.get(..self.kept).unwrap_or_default()
    }

    /// Marks bytes as used.
    pub(super) fn advance(&mut self, count: usize) {
        self.at = (self.at + count).min(self.end);
    }

    /// Fixes the first `count` bytes, the head, and marks them as used.
    pub(super) fn keep(&mut self, count: usize) {
        self.kept = count.min(self.end);
        self.at = self.kept;
        self.whole = true;
    }

    /// Goes back to the first byte of the body, if that is still here.
    pub(super) fn rewind(&mut self) -> bool {
        if self.whole {
            self.at = self.kept;
        }
        self.whole
    }

    /// Room to read into; empty when there can be none. Used bytes of the body
    /// are dropped for it only where `may_drop`.
    pub(super) fn room(&mut self, may_drop: bool) -> &mut [u8] {
        if self.end == self.bytes.len() {
            if may_drop && self.at > self.kept {
                self.bytes.copy_within(self.at..self.end, self.kept);
                self.end -= self.at - self.kept;
                self.at = self.kept;
                self.whole = false;
            }
            let full = self.end == self.bytes.len();
            if (full || self.filled) && self.bytes.len() < INPUT_MAX {
                let size = (self.bytes.len() * 4).clamp(INPUT_SIZE, INPUT_MAX);
                self.bytes.resize(size, 0);
            }
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Takes in `count` bytes that were read into [`Input::room`].
    pub(super) fn received(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
        self.filled = self.end == self.bytes.len();
    }

    /// Forgets the request; what came behind it moves to the front.
    pub(super) fn next(&mut self) {
        self.bytes.copy_within(self.at..self.end, 0);
        self.end -= self.at;
        (self.at, self.kept) = (0, 0);
    }

    /// Forgets everything.
    pub(super) fn forget(&mut self) {
        (self.at, self.end, self.kept) = (0, 0, 0);
    }

    fn reset(&mut self) {
        self.forget();
        if self.bytes.len() > KEPT {
            self.bytes = Vec::new();
        }
    }
}

/// Bytes on their way to one side.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Appended to by the writers of heads and chunks.
    pub(super) bytes: Vec<u8>,
    at: usize,
}

impl Output {
    /// What was not taken yet.
    pub(super) fn pending(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Marks bytes as taken.
    pub(super) fn advance(&mut self, count: usize) {
        self.at += count;
        if self.at >= self.bytes.len() {
            self.clear();
        }
    }

    /// Drops all but the first `count` bytes of what was not taken.
    fn truncate(&mut self, count: usize) {
        self.bytes.truncate(self.at + count);
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.at = 0;
    }

    fn reset(&mut self) {
        self.clear();
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
    }
}

/// Everything that exists only while a request is under way.
pub(super) struct Work {
    pub(super) input: Input,
    pub(super) head: RequestHead,
    pub(super) answer: ResponseHead,
    pub(super) trailers: Trailers,
    /// For the visitor.
    pub(super) out: Output,
    /// For the backend.
    pub(super) lead: Output,
    /// A stream to a backend, from its opening to its first byte.
    pub(super) opened: Option<Opened>,
    /// Room for the exchange, kept because it is large.
    pub(super) slot: Option<Box<Option<Exchange>>>,
    /// The tunnel whose name the last host began with.
    pub(super) name: Option<TunnelName>,
    /// Backends that failed this request.
    pub(super) tried: Vec<BackendId>,
    /// Counts the request under the owner's rule for its tunnel.
    pub(super) visit: Option<Visit>,
    /// And under the one for its agent.
    pub(super) agent_visit: Option<Visit>,
    pub(super) draft: Draft,
}

impl Work {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            input: Input::default(),
            head: RequestHead::default(),
            answer: ResponseHead::default(),
            trailers: Trailers::default(),
            out: Output::default(),
            lead: Output::default(),
            opened: None,
            slot: None,
            name: None,
            tried: Vec::new(),
            visit: None,
            agent_visit: None,
            draft: Draft::new(Instant::now()),
        })
    }

    /// The tunnel that the first label of the host names. It is kept from
    /// request to request: most name the same.
    pub(super) fn tunnel_name(&mut self) -> Option<&TunnelName> {
        let request = self.head.view(self.input.head());
        let label = request.authority()?.host.as_str().split('.').next()?;
        if self.name.as_ref().is_none_or(|name| name.as_str() != label) {
            self.name = TunnelName::parse(label).ok();
        }
        self.name.as_ref()
    }

    /// Whether any byte of a request is here; its head may be parsed already.
    pub(super) fn has_begun(&self, parsed: bool) -> bool {
        parsed || !self.input.unread().is_empty()
    }

    /// A whole head is here: its request begins.
    pub(super) fn begin(&mut self) {
        self.draft = Draft::new(Instant::now());
        self.draft.received = self.input.head().len() as u64;
    }

    /// What is here is no head that could be read.
    pub(super) fn begin_refused(&mut self) {
        let bytes = self.input.head().len() + self.input.unread().len();
        if self.input.head().is_empty() {
            self.head.reset();
        }
        self.draft = Draft::new(Instant::now());
        self.draft.received = bytes as u64;
    }

    /// Takes a final answer back of which nothing was sent; false when some
    /// was.
    pub(super) fn withdraw_answer(&mut self) -> bool {
        if self.draft.status == 0 {
            return true;
        }
        let unsent = self.draft.head_at.checked_sub(self.draft.sent);
        if let Some(before) = unsent.and_then(|n| usize::try_from(n).ok()) {
            self.out.truncate(before);
            self.draft.status = 0;
        }
        unsent.is_some()
    }

    /// Makes ready for the next request, keeping what it already sent.
    pub(super) fn next(&mut self) {
        self.input.next();
        self.head.reset();
        self.out.clear();
        self.lead.clear();
        self.tried.clear();
        self.opened = None;
        self.visit = None;
        self.agent_visit = None;
        self.draft.backend = None;
    }

    /// Makes ready for another connection.
    pub(super) fn reset(&mut self) {
        self.next();
        self.input.reset();
        self.out.reset();
        self.lead.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(input: &mut Input, bytes: &[u8], may_drop: bool) {
        let room = input.room(may_drop);
        room[..bytes.len()].copy_from_slice(bytes);
        input.received(bytes.len());
    }

    #[test]
    fn a_body_can_be_sent_again_until_room_is_needed() {
        let mut input = Input::default();
        put(&mut input, b"HEADbody", false);
        input.keep(4);
        input.advance(4);
        assert!(input.rewind());
        assert_eq!(input.unread(), b"body");
        input.advance(4);
        put(&mut input, &[b'x'; INPUT_SIZE - 8], false);
        input.advance(INPUT_SIZE - 8);
        put(&mut input, b"more", true);
        assert!(!input.rewind());
        assert_eq!((input.head(), input.unread()), (&b"HEAD"[..], &b"more"[..]));
    }

    #[test]
    fn what_came_behind_a_request_is_kept() {
        let mut input = Input::default();
        put(&mut input, b"HEADbodyNEXT", false);
        input.keep(4);
        input.advance(4);
        input.next();
        assert_eq!((input.head(), input.unread()), (&b""[..], &b"NEXT"[..]));
    }

    #[test]
    fn input_is_bounded() {
        let mut input = Input::default();
        let mut total = 0;
        loop {
            let room = input.room(false).len();
            if room == 0 {
                break;
            }
            input.received(room);
            total += room;
        }
        assert_eq!(total, INPUT_MAX);
    }
}
