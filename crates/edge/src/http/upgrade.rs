//! After a 101: bytes, as at any other door.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use adit_link::Stream;
use adit_wire::{Delivered, ResetReason};

use super::buffer::Work;
use super::record::{Draft, Fault};
use super::server::{Connection, Then};
use crate::backend::Backend;
use crate::carry::{Broken, Carry};

impl Connection {
    /// Carries bytes until both directions have ended.
    pub(super) async fn upgraded(
        &mut self,
        work: &mut Work,
        stream: Stream,
        backend: &Arc<Backend>,
    ) -> Then {
        let http = &self.door.parts.metrics.http;
        http.upgrades.add(1);
        let _open = http.upgraded.hold();
        http.active.down();
        let rules = [backend.rule().cloned(), backend.agent_rule().cloned()];
        let mut upgraded = Carry::new(stream).paced(rules);
        let visitor = &mut self.visitor;
        let before = (work.draft.received, work.draft.sent);
        let mut end = poll_fn(|cx| poll_leftover(cx, &mut upgraded, work)).await;
        if end.is_ok() {
            end = poll_fn(|cx| {
                let end = upgraded.poll(cx, visitor);
                note(&mut work.draft, before, &upgraded);
                work.draft.count_for(backend, http);
                end
            })
            .await;
        }
        self.door.parts.metrics.http.active.up();
        note(&mut work.draft, before, &upgraded);
        work.draft.count_for(backend, http);
        match end {
            Ok(()) => {
                upgraded.into_stream().retire(&self.door.parts.tasks);
                Then::Close
            }
            Err(broken) => {
                let cancelled = ResetReason::Cancelled;
                upgraded.into_stream().reset(cancelled, Delivered::Some);
                work.draft.fault = Some(Fault::Text(broken.text()));
                Then::Cut
            }
        }
    }
}

/// What was carried belongs to the request.
fn note(draft: &mut Draft, before: (u64, u64), upgraded: &Carry) {
    draft.received = before.0 + upgraded.received;
    draft.sent = before.1 + upgraded.sent;
}

/// Sends on what came behind the request before the 101.
fn poll_leftover(
    cx: &mut Context<'_>,
    upgraded: &mut Carry,
    work: &mut Work,
) -> Poll<Result<(), Broken>> {
    loop {
        let unread = work.input.unread();
        let count = upgraded.lead(unread)?;
        let all = count == unread.len();
        work.input.advance(count);
        ready!(upgraded.poll_flush(cx))?;
        if all {
            return Poll::Ready(Ok(()));
        }
    }
}
