//! Streams to backends that wait for the next request.
//!
//! Last in, first out, so that a burst's surplus grows old and goes. A stream
//! is used again only when it is quiet: open, with nothing received; what an
//! application sends unasked, its end included, disqualifies it.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use adit_link::Stream;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use super::HttpDoor;
use crate::backend::{Backend, BackendId};

/// Most idle streams of one backend on one worker.
const PER_BACKEND: usize = 256;
/// Most idle streams of one worker.
const TOTAL: usize = 2048;
/// No backend's word makes a stream wait longer than this.
const LONGEST: Duration = Duration::from_secs(60);
/// How often old streams are looked for while there are any.
const SWEEP: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Idle {
    backend: Arc<Backend>,
    stream: Stream,
    until: Instant,
}

/// The idle streams of one worker.
#[derive(Debug, Default)]
pub(super) struct IdleStreams {
    by_backend: HashMap<BackendId, Vec<Idle>>,
    count: usize,
    sweeping: bool,
}

impl IdleStreams {
    fn pop(&mut self, backend: BackendId) -> Option<Idle> {
        let idle = self.by_backend.get_mut(&backend)?.pop()?;
        self.count -= 1;
        Some(idle)
    }

    fn push(&mut self, idle: Idle) -> Result<(), Stream> {
        let of_backend = self.by_backend.entry(idle.backend.id()).or_default();
        if of_backend.len() >= PER_BACKEND || self.count >= TOTAL {
            return Err(idle.stream);
        }
        of_backend.push(idle);
        self.count += 1;
        Ok(())
    }

    /// Takes out what is too old, not quiet any more, or of a closed backend.
    fn sweep(&mut self, now: Instant) -> Vec<Stream> {
        let mut old = Vec::new();
        for idle in self.by_backend.values_mut() {
            let mut at = 0;
            while let Some(one) = idle.get_mut(at) {
                if one.until <= now || one.backend.is_closed() || !is_quiet(&mut one.stream) {
                    old.push(idle.remove(at).stream);
                } else {
                    at += 1;
                }
            }
        }
        self.by_backend.retain(|_, idle| !idle.is_empty());
        self.count -= old.len();
        old
    }
}

impl HttpDoor {
    /// An idle stream to the backend that may be used again.
    pub(super) fn take_stream(&self, backend: BackendId, now: Instant) -> Option<Stream> {
        loop {
            let mut idle = self.pool().streams.pop(backend)?;
            if idle.until > now && is_quiet(&mut idle.stream) {
                return Some(idle.stream);
            }
            idle.stream.retire(&self.parts.tasks);
        }
    }

    /// Keeps a stream for the next request: as long as the backend said, less
    /// a second for the way, or as long as is configured.
    pub(super) fn give_stream(
        self: &Arc<Self>,
        backend: &Arc<Backend>,
        stream: Stream,
        seconds: Option<u64>,
        now: Instant,
    ) {
        let keep = seconds.map_or(self.parts.settings.backend_idle, |seconds| {
            Duration::from_secs(seconds.saturating_sub(1)).min(LONGEST)
        });
        let until = now + keep;
        let mut pool = self.pool();
        let backend = Arc::clone(backend);
        let pushed = pool.streams.push(Idle {
            backend,
            stream,
            until,
        });
        let begin = !std::mem::replace(&mut pool.streams.sweeping, true);
        drop(pool);
        if let Err(stream) = pushed {
            stream.retire(&self.parts.tasks);
        }
        if begin {
            let door = Arc::clone(self);
            self.parts
                .tasks
                .spawn_until_stopped(async move { door.sweep().await });
        }
    }

    /// Sweeps this worker's idle streams until none are left.
    async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let mut pool = self.pool();
            let old = pool.streams.sweep(Instant::now());
            let done = pool.streams.count == 0;
            pool.streams.sweeping = !done;
            drop(pool);
            for stream in old {
                stream.retire(&self.parts.tasks);
            }
            if done {
                return;
            }
        }
    }
}

/// Whether a stream may be used again. Asked outside the runtime's cooperative
/// budget: a task that has used its budget up would see every stream quiet.
fn is_quiet(stream: &mut Stream) -> bool {
    let ask = poll_fn(|_| Poll::Ready(stream.is_quiet()));
    let mut cx = Context::from_waker(Waker::noop());
    pin!(unconstrained(ask)).poll(&mut cx) == Poll::Ready(true)
}

/// How many requests may be sent a second time: a fifth of all, and a few at
/// once after a quiet time. Without it, a backend that fails every request
/// would get each of them twice.
#[derive(Debug)]
pub(super) struct Budget {
    /// In fifths of a try.
    fifths: u32,
}

/// Tries that may come at once.
const BURST: u32 = 20;

impl Default for Budget {
    fn default() -> Self {
        Self { fifths: BURST * 5 }
    }
}

impl Budget {
    /// A request came in.
    pub(super) fn earn(&mut self) {
        self.fifths = (self.fifths + 1).min(BURST * 5);
    }

    /// Whether a request may be sent again.
    pub(super) fn spend(&mut self) -> bool {
        let left = self.fifths.checked_sub(5);
        self.fifths = left.unwrap_or(self.fifths);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_backend_keeps_no_streams() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut streams = IdleStreams::default();
        let backends = [(); 2].map(|()| Arc::new(Backend::upstream(&address.to_string())));
        let until = Instant::now() + LONGEST;
        let mut far = Vec::new();
        for backend in &backends {
            let socket = tokio::net::TcpStream::connect(address).await.unwrap();
            far.push(listener.accept().await.unwrap());
            let (backend, stream) = (Arc::clone(backend), Stream::plain(socket));
            let idle = Idle {
                backend,
                stream,
                until,
            };
            assert!(streams.push(idle).is_ok());
        }
        assert!(streams.sweep(Instant::now()).is_empty());
        backends[0].close();
        assert_eq!(streams.sweep(Instant::now()).len(), 1);
        assert!(streams.pop(backends[0].id()).is_none());
        assert!(streams.pop(backends[1].id()).is_some());
    }

    #[tokio::test]
    async fn a_spent_budget_hides_no_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let mut stream = Stream::plain(socket);
        assert!(is_quiet(&mut stream));
        drop(far);
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            assert!(polls < 100_000, "the end was never seen");
            while tokio::task::coop::has_budget_remaining() {
                let spend = pin!(tokio::task::coop::consume_budget());
                let _ = spend.poll(cx);
            }
            if is_quiet(&mut stream) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    #[test]
    fn a_fifth_may_be_tried_again() {
        let mut budget = Budget::default();
        let mut spent = 0;
        while budget.spend() {
            spent += 1;
        }
        assert_eq!(spent, BURST);
        let mut again = 0;
        for _ in 0..100 {
            budget.earn();
            again += u32::from(budget.spend());
        }
        assert_eq!(again, 20);
    }
}
