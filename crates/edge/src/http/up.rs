//! The request's direction of an exchange: visitor to backend.

use std::task::{Context, Poll};
use std::time::Duration;

use adit_http1::{Body, BodyError, Framing, LAST_CHUNK, Refusal, Request, write_trailers};
use tokio::time::Instant;

use super::buffer::Work;
use super::pump::{COPY, Exchange, Facts, Fail, GATHER, put_chunk};
use super::rate::Rate;
use super::record::Fault;
use crate::metrics::HttpRefusal;
use crate::rules::Way;
use crate::visitor::Visitor;

/// Where the request stands.
pub(super) struct Up {
    body: Body,
    chunked: bool,
    /// Data bytes that may still come.
    allowed: u64,
    /// All was handed to the stream and flushed.
    pub(super) done: bool,
    /// Since when an answer is due, where that matters.
    pub(super) done_at: Option<Instant>,
    /// The stream takes no more, since when; an answer may say why.
    pub(super) broken: Option<(Fail, Instant)>,
    /// How the body comes; `None` however slowly.
    rate: Option<Rate>,
    /// The visitor waits for a 100 itself: its time for the body begins later.
    pub(super) patient: bool,
    /// When it has waited for too long.
    patient_until: Option<Instant>,
    patience: Duration,
}

impl Up {
    pub(super) fn new(request: &Request<'_>, facts: &Facts<'_>) -> Self {
        let framing = request.framing();
        let settings = facts.settings;
        Self {
            body: Body::new(framing),
            chunked: framing == Framing::Chunked,
            allowed: facts.body_limit,
            done: false,
            done_at: (framing == Framing::None).then_some(facts.started),
            broken: None,
            rate: (settings.body_rate > 0)
                .then(|| Rate::new(settings.body_rate, settings.body_grace)),
            patient: request.expects_continue(),
            patient_until: None,
            patience: settings.stall_time,
        }
    }

    /// When the visitor's time for its body is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadline = self.rate?.deadline();
        deadline.or(self.patient_until)
    }

    fn waits(&mut self) {
        if self.patient {
            let until = Instant::now() + self.patience;
            self.patient_until.get_or_insert(until);
        } else if let Some(rate) = &mut self.rate {
            rate.waits();
        }
    }

    /// It is the owner who lets the visitor wait.
    fn rests(&mut self) {
        self.patient_until = None;
        if let Some(rate) = &mut self.rate {
            rate.rests();
        }
    }

    fn came(&mut self, count: usize) {
        (self.patient, self.patient_until) = (false, None);
        if let Some(rate) = &mut self.rate {
            rate.moved(count);
        }
    }

    /// Counts data against the limit.
    fn count(&mut self, data: usize) -> Result<(), Fail> {
        let left = self.allowed.checked_sub(data as u64);
        self.allowed = left.ok_or(Fail::Refuse {
            status: 413,
            label: HttpRefusal::TooLarge,
            fault: Fault::Text("body is too large"),
        })?;
        Ok(())
    }

    /// How much of `unread` belongs to a body of known length.
    fn ready(&self, unread: &[u8]) -> usize {
        let left = self.body.remaining().unwrap_or(0);
        usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(unread.len())
    }
}

fn bad_body(error: BodyError) -> Fail {
    Fail::Refuse {
        status: 400,
        label: HttpRefusal::Malformed,
        fault: Fault::Refused(Refusal::Body(error)),
    }
}

/// What a push came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pushed {
    /// Everything is handed over.
    All,
    /// The rest has not come yet.
    Hungry,
    /// The stream has no room.
    Full,
    /// The owner's rule lets no more of the body through now.
    Spent,
}

impl Exchange {
    /// Moves the request as far as it goes now.
    pub(super) fn poll_up(
        &mut self,
        cx: &mut Context<'_>,
        visitor: &mut Visitor,
        work: &mut Work,
        facts: &Facts<'_>,
    ) -> Result<(), Fail> {
        while !self.up.done && self.up.broken.is_none() {
            let most = self.poll_pace_up(cx);
            let pushed = self.push(work, most)?;
            match self.stream.poll_flush(cx) {
                Poll::Ready(Ok(())) if pushed == Pushed::All => {
                    self.up.done = true;
                    if facts.answer_time.is_some() {
                        self.up.done_at.get_or_insert_with(Instant::now);
                    }
                    break;
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.up.broken = Some((self.broken(&error), Instant::now()));
                    break;
                }
                Poll::Pending if pushed == Pushed::Hungry => {}
                Poll::Pending => break,
            }
            if most == 0 {
                self.up.rests();
                break;
            }
            if pushed != Pushed::Hungry {
                continue;
            }
            // Before the stream is accepted it may come to a second try.
            let may_drop = self.stream.accepted();
            match visitor.poll_fill_some(cx, &mut work.input, may_drop, most) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(Fail::Visitor),
                Poll::Ready(Ok(count)) => self.up.came(count),
                Poll::Pending => {
                    self.up.waits();
                    break;
                }
            }
        }
        Ok(())
    }

    /// How much of the body the owner's rules let through now; with none the
    /// task is woken when it is more.
    fn poll_pace_up(&mut self, cx: &mut Context<'_>) -> usize {
        if self.up.body.is_done() {
            return usize::MAX;
        }
        match self.paces.poll(cx, Way::Up) {
            Poll::Ready(most) => most,
            Poll::Pending => 0,
        }
    }

    /// Hands over the head and what is here of the body, not much more of it
    /// than `most`.
    fn push(&mut self, work: &mut Work, mut most: usize) -> Result<Pushed, Fail> {
        loop {
            self.gather(work, &mut most)?;
            let lead = work.lead.pending();
            if !lead.is_empty() {
                let count = self.lend(lead)?;
                work.lead.advance(count);
                if count == 0 {
                    return Ok(Pushed::Full);
                }
                continue;
            }
            if self.up.body.is_done() {
                return Ok(Pushed::All);
            }
            if most == 0 && !work.input.unread().is_empty() {
                return Ok(Pushed::Spent);
            }
            let ready = self.up.ready(work.input.unread()).min(most);
            if ready == 0 {
                return Ok(Pushed::Hungry);
            }
            let data = work.input.unread().get(..ready).unwrap_or_default();
            let count = self.lend(data)?;
            if count == 0 {
                return Ok(Pushed::Full);
            }
            self.take(work, count)?;
            most -= count;
        }
    }

    /// Copies as much as the stream has room for.
    fn lend(&mut self, bytes: &[u8]) -> Result<usize, Fail> {
        let written = self.stream.write(bytes);
        written.map_err(|error| self.broken(&error))
    }

    /// Puts behind the head what goes with it: a small body, or chunks.
    fn gather(&mut self, work: &mut Work, most: &mut usize) -> Result<(), Fail> {
        if self.up.chunked {
            return self.gather_chunks(work, most);
        }
        let ready = self.up.ready(work.input.unread());
        if ready > 0 && ready <= COPY.min(*most) && !work.lead.pending().is_empty() {
            let Work { input, lead, .. } = work;
            let data = input.unread().get(..ready).unwrap_or_default();
            lead.bytes.extend_from_slice(data);
            self.take(work, ready)?;
            *most -= ready;
        }
        Ok(())
    }

    fn gather_chunks(&mut self, work: &mut Work, most: &mut usize) -> Result<(), Fail> {
        while *most > 0 && work.lead.pending().len() < GATHER && !self.up.body.is_done() {
            let Work {
                input,
                lead,
                trailers,
                ..
            } = work;
            let unread = input.unread();
            let piece = unread.get(..*most).unwrap_or(unread);
            let mut step = self.up.body.decode(piece).map_err(bad_body)?;
            if step.consumed == 0 && !step.done && piece.len() < unread.len() {
                // What cannot be taken in parts.
                step = self.up.body.decode(unread).map_err(bad_body)?;
            }
            if step.consumed == 0 && !step.done {
                break;
            }
            let data = unread.get(step.data).unwrap_or_default();
            self.up.count(data.len())?;
            put_chunk(lead, data);
            match step.trailers.and_then(|range| unread.get(range)) {
                Some(section) => {
                    trailers.parse(section).map_err(bad_body)?;
                    write_trailers(&mut lead.bytes, trailers, section);
                }
                None if step.done => lead.bytes.extend_from_slice(LAST_CHUNK),
                None => {}
            }
            *most = most.saturating_sub(step.consumed);
            work.draft.received += step.consumed as u64;
            work.input.advance(step.consumed);
            self.paces.moved(Way::Up, step.consumed);
        }
        Ok(())
    }

    /// Marks data of a body of known length as handed over.
    fn take(&mut self, work: &mut Work, count: usize) -> Result<(), Fail> {
        let data = work.input.unread().get(..count).unwrap_or_default();
        self.up.body.decode(data).map_err(bad_body)?;
        self.up.count(count)?;
        work.input.advance(count);
        work.draft.received += count as u64;
        self.paces.moved(Way::Up, count);
        Ok(())
    }
}
