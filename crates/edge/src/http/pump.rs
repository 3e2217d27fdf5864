//! One exchange: the request to a backend and its answer to the visitor, both
//! at the same time, in one poll function.
//!
//! Each poll moves what can be moved in both directions ([`super::up`],
//! [`super::down`]) and then waits once. What was received is used before more
//! is read, and what is to be sent is gathered before it is written, so that a
//! small request costs one write to the backend and one to the visitor.
//! Neither direction is read while its other end does not take what is there.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_http1::{CHUNK_END, Request, write_chunk_head};
use adit_link::{Stream, StreamError};
use adit_model::Code;
use adit_wire::Delivered;
use tokio::time::Instant;

use super::HttpSettings;
use super::buffer::{Output, Work};
use super::down::Down;
use super::rate::Rate;
use super::record::Fault;
use super::route::{Opened, Plan};
use super::timer::Timer;
use super::up::Up;
use super::visitor::Peer;
use crate::backend::Backend;
use crate::metrics::{BackendFailure, HttpRefusal};
use crate::rules::Paces;
use crate::visitor::Visitor;

/// Bytes that are gathered before a write.
pub(super) const GATHER: usize = 64 * 1024;
/// Data up to this size is copied behind a head rather than written from where
/// it lies.
pub(super) const COPY: usize = 4 * 1024;

/// How long the answer of a backend that takes no more of a request may still
/// be on its way.
const TELL_TIME: Duration = Duration::from_secs(1);

/// What an exchange is told.
pub(super) struct Facts<'a> {
    pub(super) plan: &'a Plan,
    pub(super) backend: &'a Arc<Backend>,
    pub(super) peer: &'a Peer,
    pub(super) settings: &'a HttpSettings,
    /// When the request's head was whole.
    pub(super) started: Instant,
    pub(super) answer_time: Option<Duration>,
    pub(super) body_limit: u64,
    /// The upgrade was passed on.
    pub(super) upgrade: bool,
    /// The visitor's connection may go on afterwards.
    pub(super) keep_alive: bool,
}

/// How an exchange ended well.
#[derive(Debug)]
pub(super) enum End {
    /// The answer was sent whole.
    Complete {
        /// The backend's stream can carry another request.
        reuse: bool,
        /// The visitor was told that its connection goes on.
        keep_alive: bool,
    },
    /// A 101 was sent: what follows is no HTTP.
    Upgraded,
}

/// Whether a request that failed may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resend {
    /// To another backend: this one got nothing.
    Elsewhere,
    /// Once, if the request is idempotent; `stale`: the stream had waited idle
    /// and its backend may be well.
    IfIdempotent { stale: bool },
    /// No.
    Never,
}

/// How an exchange ended badly.
#[derive(Debug)]
pub(super) enum Fail {
    /// The visitor is gone.
    Visitor,
    /// The visitor's fault.
    Refuse {
        status: u16,
        label: HttpRefusal,
        fault: Fault,
    },
    /// The backend's.
    Backend {
        label: BackendFailure,
        resend: Resend,
        /// What the agent is told, when it cannot know by itself.
        code: Option<Code>,
        fault: Fault,
    },
}

/// One exchange.
pub(super) struct Exchange {
    pub(super) stream: Stream,
    reused: bool,
    pub(super) up: Up,
    pub(super) down: Down,
    /// The backend has sent something.
    pub(super) answered: bool,
    /// How the answer is taken.
    pub(super) taking: Rate,
    /// Since when the visitor, of which no more is heard, got nothing.
    pub(super) silent: Option<Instant>,
    pub(super) paces: Paces,
    /// The answer waits for them.
    pub(super) resting: bool,
}

impl Exchange {
    pub(super) fn new(opened: Opened, request: &Request<'_>, facts: &Facts<'_>) -> Self {
        Self {
            stream: opened.stream,
            reused: opened.reused,
            up: Up::new(request, facts),
            down: Down::default(),
            answered: false,
            taking: Rate::new(facts.settings.body_rate, facts.settings.stall_time),
            silent: None,
            paces: paces(facts.backend),
            resting: false,
        }
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Moves what can be moved.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        visitor: &mut Visitor,
        timer: &mut Timer,
        work: &mut Work,
        facts: &Facts<'_>,
    ) -> Poll<Result<End, Fail>> {
        let accepted = self.stream.accepted();
        self.poll_up(cx, visitor, work, facts)?;
        match self.poll_down(cx, visitor, work, facts) {
            Ok(Poll::Ready(end)) => return Poll::Ready(Ok(end)),
            Ok(Poll::Pending) => {}
            Err(Fail::Visitor) => return Poll::Ready(Err(Fail::Visitor)),
            Err(fail) => {
                return Poll::Ready(Err(self.up.broken.take().map_or(fail, |(why, _)| why)));
            }
        }
        if let Poll::Ready(error) = self.stream.poll_cut(cx) {
            return Poll::Ready(Err(self.broken(&error)));
        }
        if self.stream.accepted() != accepted {
            // There may be room for more of the body now, and nothing but
            // this acceptance would wake the task for it.
            self.poll_up(cx, visitor, work, facts)?;
        }
        if self.up.done && !self.hears(cx, visitor, work)? {
            self.silent.get_or_insert_with(Instant::now);
        }
        if self.resting {
            // It is the owner who lets the visitor wait.
            self.silent = None;
        }
        self.poll_deadlines(cx, timer, facts)
    }

    /// Takes in what comes behind a request: the next one, or news of the
    /// visitor. False when nothing more will be heard of it.
    fn hears(
        &mut self,
        cx: &mut Context<'_>,
        visitor: &mut Visitor,
        work: &mut Work,
    ) -> Result<bool, Fail> {
        while !visitor.ended {
            match visitor.poll_fill(cx, &mut work.input, false) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Err(Fail::Visitor),
                // Without room nobody listens for the end of the connection.
                Poll::Pending => return Ok(!work.input.room(false).is_empty()),
            }
        }
        Ok(false)
    }

    fn poll_deadlines(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut Timer,
        facts: &Facts<'_>,
    ) -> Poll<Result<End, Fail>> {
        let body_by = self.up.deadline();
        let answer_by = match (self.up.done_at, facts.answer_time) {
            (Some(at), Some(time)) if self.down.is_head() => Some(at + time),
            _ => None,
        };
        let taken_by = self.taking.deadline();
        // A visitor that has gone looks like one that has ended its direction.
        let heard_by = self.silent.map(|at| at + facts.settings.stall_time);
        // A backend that takes no more of the request may have said why.
        let told_by = match &self.up.broken {
            Some((_, at)) if self.down.is_head() => Some(*at + TELL_TIME),
            _ => None,
        };
        let first = [body_by, answer_by, taken_by, heard_by, told_by]
            .into_iter()
            .flatten()
            .min();
        ready!(timer.poll(cx, first));
        if let Some((fail, _)) = self.up.broken.take_if(|_| first == told_by) {
            return Poll::Ready(Err(fail));
        }
        Poll::Ready(Err(if first == body_by {
            Fail::Refuse {
                status: 408,
                label: HttpRefusal::Slow,
                fault: Fault::Text("body came too slowly"),
            }
        } else if first == answer_by {
            Fail::Backend {
                label: BackendFailure::Timeout,
                resend: Resend::Never,
                code: Some(Code::TARGET_SLOW),
                fault: Fault::Text("no answer in time"),
            }
        } else {
            Fail::Visitor
        }))
    }

    /// What an error of the stream means for the request.
    pub(super) fn broken(&self, error: &StreamError) -> Fail {
        let unless_answered = |resend| {
            if self.answered { Resend::Never } else { resend }
        };
        let (label, resend) = match error {
            StreamError::Reset {
                delivered: Delivered::None,
                ..
            } => (
                BackendFailure::Unreachable,
                unless_answered(Resend::Elsewhere),
            ),
            StreamError::Unanswered => (
                BackendFailure::Unreachable,
                unless_answered(Resend::IfIdempotent { stale: false }),
            ),
            StreamError::Reset { .. }
            | StreamError::Truncated
            | StreamError::Io(_)
            | StreamError::Protocol => (
                BackendFailure::Cut,
                unless_answered(Resend::IfIdempotent { stale: self.reused }),
            ),
        };
        Fail::Backend {
            label,
            resend,
            code: None,
            fault: Fault::Other(error.to_string()),
        }
    }

    /// The backend ended its direction too early.
    pub(super) fn ended_early(&self) -> Fail {
        let resend = if self.answered {
            Resend::Never
        } else {
            Resend::IfIdempotent { stale: self.reused }
        };
        Fail::Backend {
            label: BackendFailure::Cut,
            resend,
            code: (!self.reused).then_some(Code::TARGET_CLOSED),
            fault: Fault::Text("backend closed before its answer was whole"),
        }
    }
}

/// What the owner's rules for the tunnel and for its agent say of bytes.
fn paces(backend: &Backend) -> Paces {
    let rules = [backend.rule(), backend.agent_rule()];
    Paces::new(rules.into_iter().flatten().cloned())
}

/// The backend's answer is no HTTP that could be passed on.
pub(super) fn malformed(fault: Fault) -> Fail {
    Fail::Backend {
        label: BackendFailure::Malformed,
        resend: Resend::Never,
        code: Some(Code::TARGET_NOT_HTTP),
        fault,
    }
}

/// Appends data as one chunk; no data, no chunk.
pub(super) fn put_chunk(out: &mut Output, data: &[u8]) {
    if !data.is_empty() {
        out.bytes.reserve(data.len() + 24);
        write_chunk_head(&mut out.bytes, data.len());
        out.bytes.extend_from_slice(data);
        out.bytes.extend_from_slice(CHUNK_END);
    }
}
