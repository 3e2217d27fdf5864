//! The answer's direction of an exchange: backend to visitor.

use std::task::{Context, Poll};

use adit_http1::{
    BadResponse, Body, Framing, LAST_CHUNK, Method, Name, Outcome, ResponseOptions, Rewrite,
    Version, write_response, write_trailers,
};
use adit_link::Fill;

use tokio::time::Instant;

use super::buffer::Work;
use super::pump::{COPY, End, Exchange, Facts, Fail, GATHER, malformed, put_chunk};
use super::record::Fault;
use super::respond::date;
use super::rewrite::{origins, visitor_origin};
use crate::rules::Way;
use crate::splice::{Failed, Pipe};
use crate::visitor::Visitor;
use crate::ways::{TURN, others_first};

/// Interim answers that one request may get.
const MAX_INTERIM: u8 = 16;
/// Of a body that has so much to come the rest goes past this process.
const WORTH_A_PIPE: u64 = 512 * 1024;
/// With so many bytes at hand nothing more is read before they are written.
const WORTH_WRITING: usize = 16 * 1024;

/// Where the answer stands.
#[derive(Default)]
pub(super) struct Down {
    state: State,
    /// Data at the front of the stream's buffer that is written from there.
    direct: usize,
    /// The rest of the body goes by this.
    pipe: Option<Box<Pipe>>,
    interim: u8,
    /// The backend keeps its connection, for so many seconds if it says.
    reuse: bool,
    pub(super) seconds: Option<u64>,
    keep_alive: bool,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Head,
    Body(AnswerBody),
    /// A 101 is written.
    Switched,
    Done,
}

#[derive(Clone, Copy)]
struct AnswerBody {
    body: Body,
    /// It comes in chunks.
    from_chunks: bool,
    /// It goes out in chunks.
    to_chunks: bool,
    /// All of it is in `out` or `direct`.
    received: bool,
}

impl Down {
    /// Whether the answer's head has not come.
    pub(super) fn is_head(&self) -> bool {
        matches!(self.state, State::Head)
    }
}

impl Exchange {
    /// Moves the answer as far as it goes now.
    pub(super) fn poll_down(
        &mut self,
        cx: &mut Context<'_>,
        visitor: &mut Visitor,
        work: &mut Work,
        facts: &Facts<'_>,
    ) -> Result<Poll<End>, Fail> {
        loop {
            match self.down.state {
                State::Head => {
                    if self.read_head(cx, work, facts)?.is_pending() {
                        // An interim answer does not wait for the final one.
                        let _ = self.poll_out(cx, visitor, work)?;
                        return Ok(Poll::Pending);
                    }
                }
                State::Body(body) => {
                    let moved = match self.poll_past(cx, visitor, work, body)? {
                        Some(moved) => moved,
                        None => self.move_body(cx, visitor, work, body)?,
                    };
                    if moved.is_pending() {
                        return Ok(Poll::Pending);
                    }
                }
                State::Switched | State::Done => {
                    if self.poll_out(cx, visitor, work)?.is_pending() {
                        return Ok(Poll::Pending);
                    }
                    return Ok(Poll::Ready(self.end(facts)));
                }
            }
        }
    }

    fn end(&self, facts: &Facts<'_>) -> End {
        if matches!(self.down.state, State::Switched) {
            return End::Upgraded;
        }
        let quiet = self.stream.buffer().is_empty() && !self.stream.ended();
        End::Complete {
            // An upgrade that was not made leaves doubt about what follows.
            reuse: self.down.reuse && quiet && self.up.done && !facts.upgrade,
            keep_alive: self.down.keep_alive,
        }
    }

    /// Reads until a head is whole and deals with it.
    fn read_head(
        &mut self,
        cx: &mut Context<'_>,
        work: &mut Work,
        facts: &Facts<'_>,
    ) -> Result<Poll<()>, Fail> {
        loop {
            let buffer = self.stream.buffer();
            if !buffer.is_empty() {
                self.answered = true;
                let parsed = work.answer.parse(buffer, &facts.settings.head);
                if parsed.map_err(|bad| malformed(Fault::BadAnswer(bad)))? {
                    self.on_head(work, facts)?;
                    self.stream.consume(work.answer.length());
                    work.answer.reset();
                    return Ok(Poll::Ready(()));
                }
            }
            match self.stream.poll_fill(cx) {
                Poll::Ready(Ok(Fill::Data)) => {}
                Poll::Ready(Ok(Fill::End)) => return Err(self.ended_early()),
                Poll::Ready(Err(error)) => return Err(self.broken(&error)),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
    }

    /// Deals with the head that was parsed.
    fn on_head(&mut self, work: &mut Work, facts: &Facts<'_>) -> Result<(), Fail> {
        let request = work.head.view(work.input.head());
        let response = work.answer.view(self.stream.buffer());
        if response.is_interim() {
            self.down.interim += 1;
            if self.down.interim > MAX_INTERIM {
                return Err(malformed(Fault::Text("too many interim answers")));
            }
            let expected = response.status() != 100 || self.up.patient;
            self.up.patient &= response.status() != 100;
            if request.version() == Version::Http11 && expected {
                write_response(&mut work.out.bytes, &response, &interim_options());
            }
            return Ok(());
        }
        let switches = response.status() == 101;
        let agreed = |protocol: &[u8]| protocol.eq_ignore_ascii_case(request.upgrade_value());
        if switches && !(facts.upgrade && response.upgrade_value().is_some_and(agreed)) {
            return Err(malformed(Fault::BadAnswer(BadResponse::Unasked)));
        }
        let framing = response.framing(request.method() == Method::Head);
        self.down.reuse = response.keep_alive() && framing != Framing::UntilClose;
        self.down.seconds = response.keep_alive_seconds();
        work.draft.status = response.status();
        work.draft.answered = Some(Instant::now());
        let outcome = self.write_head(work, facts);
        self.down.keep_alive = outcome.keep_alive;
        self.down.state = if switches {
            State::Switched
        } else {
            State::Body(AnswerBody {
                body: Body::new(framing),
                from_chunks: framing == Framing::Chunked,
                to_chunks: outcome.chunked,
                received: false,
            })
        };
        Ok(())
    }

    /// Writes the final head as the visitor gets it.
    fn write_head(&self, work: &mut Work, facts: &Facts<'_>) -> Outcome {
        let Work {
            input,
            head,
            answer,
            out,
            draft,
            ..
        } = work;
        let request = head.view(input.head());
        let response = answer.view(self.stream.buffer());
        let may_rewrite = facts.plan.options().is_none_or(|o| o.rewrite);
        let names = if may_rewrite && response.may_name_origin() {
            origins(facts.plan, facts.backend)
        } else {
            Vec::new()
        };
        let rewrite = (!names.is_empty()).then(|| {
            let (scheme, host) = visitor_origin(&request, facts.peer);
            Rewrite {
                backend: &names,
                scheme,
                host,
            }
        });
        let date = (!response.has(Name::Date)).then(date);
        let options = ResponseOptions {
            visitor: request.version(),
            to_head: request.method() == Method::Head,
            // Whether the rest of a request still comes is not known.
            keep_alive: facts.keep_alive && self.up.done,
            rewrite,
            hide_server: may_rewrite,
            date: date.as_ref().map(|d| &d[..]),
        };
        draft.head_at = draft.sent + out.pending().len() as u64;
        write_response(&mut out.bytes, &response, &options)
    }

    /// Moves the rest of a large body past this process; `None` where that
    /// cannot be, because something has to be done to it.
    fn poll_past(
        &mut self,
        cx: &mut Context<'_>,
        visitor: &mut Visitor,
        work: &mut Work,
        mut answer: AnswerBody,
    ) -> Result<Option<Poll<()>>, Fail> {
        let coded = answer.from_chunks || answer.to_chunks;
        let waiting = !work.out.pending().is_empty() || self.down.direct > 0;
        let mut left = match answer.body.remaining() {
            Some(left) if !coded && !waiting && self.paces.is_empty() => left,
            _ => return Ok(None),
        };
        let (Some(from), Some(to)) = (self.stream.bare(), visitor.plain()) else {
            return Ok(None);
        };
        if self.down.pipe.is_none() && left >= WORTH_A_PIPE {
            // Without one the body is copied.
            self.down.pipe = Pipe::new().ok().map(Box::new);
        }
        let Some(pipe) = &mut self.down.pipe else {
            return Ok(None);
        };
        let (before, mut turn) = (left, TURN);
        let moved = loop {
            match pipe.poll_move(cx, (from, to), &mut left) {
                Poll::Ready(Ok(0)) => break Ok(Poll::Ready(())),
                Poll::Ready(Ok(count)) => {
                    self.taking.moved(count);
                    self.silent = None;
                    work.draft.sent += count as u64;
                    turn = turn.saturating_sub(count);
                    if turn == 0 {
                        break Ok(others_first(cx));
                    }
                }
                Poll::Ready(Err(failed)) => break Err(failed),
                Poll::Pending => {
                    if !pipe.is_empty() {
                        self.taking.waits();
                    }
                    break Ok(Poll::Pending);
                }
            }
        };
        answer.body.skip(before - left);
        let moved = moved.map_err(|failed| match failed {
            Failed::From => self.ended_early(),
            Failed::To => Fail::Visitor,
        })?;
        answer.received = moved.is_ready();
        self.down.state = State::Body(answer);
        if answer.received {
            self.down.pipe = None;
            self.down.state = State::Done;
        }
        Ok(Some(moved))
    }

    /// Moves some of the body; pending when nothing can be moved.
    fn move_body(
        &mut self,
        cx: &mut Context<'_>,
        visitor: &mut Visitor,
        work: &mut Work,
        mut answer: AnswerBody,
    ) -> Result<Poll<()>, Fail> {
        self.gather_answer(work, &mut answer)?;
        let held = work.out.pending().len() + self.down.direct;
        if !answer.received && self.down.direct == 0 && held < WORTH_WRITING {
            match self.stream.poll_fill(cx) {
                Poll::Ready(Ok(Fill::Data)) => {
                    self.down.state = State::Body(answer);
                    return Ok(Poll::Ready(()));
                }
                Poll::Ready(Ok(Fill::End)) => {
                    answer.body.finish().map_err(|_| self.ended_early())?;
                    if answer.to_chunks {
                        work.out.bytes.extend_from_slice(LAST_CHUNK);
                    }
                    answer.received = true;
                }
                Poll::Ready(Err(error)) => return Err(self.broken(&error)),
                Poll::Pending => {}
            }
        }
        let nothing =
            work.out.pending().is_empty() && self.down.direct == 0 && !visitor.has_unsent();
        self.down.state = if answer.received && nothing {
            State::Done
        } else {
            State::Body(answer)
        };
        if nothing {
            return Ok(if answer.received {
                Poll::Ready(())
            } else {
                Poll::Pending
            });
        }
        self.poll_out(cx, visitor, work)
    }

    /// Decodes what the stream holds into `out`, or marks it as `direct`.
    fn gather_answer(&mut self, work: &mut Work, answer: &mut AnswerBody) -> Result<(), Fail> {
        while !answer.received && self.down.direct == 0 && work.out.pending().len() < GATHER {
            let buffer = self.stream.buffer();
            let bad = |error| malformed(Fault::BadBody(error));
            let piece = buffer.get(..GATHER).unwrap_or(buffer);
            let piece = if answer.from_chunks || answer.to_chunks {
                piece
            } else {
                buffer
            };
            let mut step = answer.body.decode(piece).map_err(bad)?;
            if step.consumed == 0 && !step.done && piece.len() < buffer.len() {
                step = answer.body.decode(buffer).map_err(bad)?;
            }
            if step.consumed == 0 && !step.done {
                break;
            }
            let data = buffer.get(step.data).unwrap_or_default();
            if answer.to_chunks {
                put_chunk(&mut work.out, data);
            } else if answer.from_chunks || data.len() <= COPY {
                work.out.bytes.extend_from_slice(data);
            } else {
                self.down.direct = data.len();
            }
            answer.received = step.done;
            if step.done && answer.to_chunks {
                match step.trailers.and_then(|range| buffer.get(range)) {
                    Some(section) => {
                        let Work { trailers, out, .. } = &mut *work;
                        trailers.parse(section).map_err(bad)?;
                        write_trailers(&mut out.bytes, trailers, section);
                    }
                    None => work.out.bytes.extend_from_slice(LAST_CHUNK),
                }
            }
            if self.down.direct == 0 {
                self.stream.consume(step.consumed);
            }
        }
        Ok(())
    }

    /// Writes what waits for the visitor, at least some of it.
    fn poll_out(
        &mut self,
        cx: &mut Context<'_>,
        visitor: &mut Visitor,
        work: &mut Work,
    ) -> Result<Poll<()>, Fail> {
        while !work.out.pending().is_empty() || self.down.direct > 0 {
            let Some(most) = self.poll_pace_down(cx) else {
                return self.rest(cx, visitor);
            };
            let out = work.out.pending();
            let out = out.get(..most).unwrap_or(out);
            let direct = self.stream.buffer().get(..self.down.direct);
            let direct = direct.unwrap_or_default();
            let direct = direct.get(..most - out.len()).unwrap_or(direct);
            let written = if self.closes_behind(out.len() + direct.len(), work) {
                visitor.poll_write_last(cx, out, direct)
            } else {
                visitor.poll_write(cx, out, direct)
            };
            let Poll::Ready(written) = written else {
                self.taking.waits();
                return Ok(Poll::Pending);
            };
            let count = written.map_err(|_| Fail::Visitor)?;
            self.taking.moved(count);
            self.silent = None;
            self.paces.moved(Way::Down, count);
            work.draft.sent += count as u64;
            let from_out = count.min(work.out.pending().len());
            work.out.advance(from_out);
            self.stream.consume(count - from_out);
            self.down.direct -= count - from_out;
        }
        match visitor.poll_flush(cx) {
            Poll::Ready(sent) => sent.map(Poll::Ready).map_err(|_| Fail::Visitor),
            Poll::Pending => {
                self.taking.waits();
                Ok(Poll::Pending)
            }
        }
    }

    /// Whether the next `count` bytes are the answer's last, and nothing comes
    /// between them and the end of the connection.
    fn closes_behind(&self, count: usize, work: &Work) -> bool {
        let received = match self.down.state {
            State::Done => true,
            State::Body(body) => body.received,
            State::Head | State::Switched => false,
        };
        let all = work.out.pending().len() + self.down.direct;
        received && count == all && !self.down.keep_alive && self.up.done
    }

    /// How much the owner's rules let through to the visitor now; with `None`
    /// the task is woken when it is some.
    fn poll_pace_down(&mut self, cx: &mut Context<'_>) -> Option<usize> {
        let ready = self.paces.poll(cx, Way::Down);
        self.resting = ready.is_pending();
        match ready {
            Poll::Ready(most) => Some(most),
            Poll::Pending => None,
        }
    }

    /// Waits for the owner's rules; what was written before goes out.
    fn rest(&mut self, cx: &mut Context<'_>, visitor: &mut Visitor) -> Result<Poll<()>, Fail> {
        match visitor.poll_flush(cx) {
            Poll::Ready(sent) => {
                sent.map_err(|_| Fail::Visitor)?;
                self.taking.rests();
            }
            Poll::Pending => self.taking.waits(),
        }
        Ok(Poll::Pending)
    }
}

fn interim_options() -> ResponseOptions<'static> {
    ResponseOptions {
        visitor: Version::Http11,
        to_head: false,
        keep_alive: true,
        rewrite: None,
        hide_server: true,
        date: None,
    }
}
