//! What tunnels have carried.
//!
//! The counters of a tunnel are kept while its agent is away, since the edge's
//! start: an agent that is killed and comes back goes on with them.
//!
//! Invariants: two live tunnels never share counters; memory is bounded by the
//! live tunnels and [`MAX_AWAY`] others, those that were opened last.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_model::{PublicKey, TunnelName};
use adit_wire::{Counters, TunnelKind};
use tokio::time::Instant;

/// Most tunnels that are remembered although nobody serves them.
const MAX_AWAY: usize = 4096;

/// What a backend has carried.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Requests and upgraded streams that it carries now.
    pub active: AtomicU32,
    /// Requests and upgraded streams that it was given.
    pub requests: AtomicU64,
    /// Bytes from visitors.
    pub bytes_in: AtomicU64,
    /// Bytes to visitors.
    pub bytes_out: AtomicU64,
    /// Requests that it failed.
    pub failures: AtomicU64,
    /// Datagrams of its flows that were dropped.
    pub drops: AtomicU64,
    /// Bytes of an exchange, both ways, on average of the last; 0 before the
    /// first.
    mean: AtomicU32,
    /// When the last exchange ended, in ms since [`START`]; 0 before the first.
    last: AtomicU64,
    /// It is in its pool.
    live: AtomicBool,
}

/// What an exchange is taken to carry before any has ended.
const FIRST: u32 = 128 * 1024;
/// No exchange counts for more.
const LARGEST: u32 = 16 * 1024 * 1024;
/// A new exchange is one of so many.
const OF: u32 = 16;
/// Exchanges follow each other closely when they end within this time.
const CLOSE: Duration = Duration::from_millis(20);

/// Bytes of an exchange, on average, below which streams go by lines where there
/// are some, and above which they leave them: a line copies each byte once more.
const LITTLE: u32 = 64 * 1024;
const MUCH: u32 = 256 * 1024;

/// A little before the first look, so that no exchange ends at 0.
static START: LazyLock<Instant> = LazyLock::new(|| {
    let now = Instant::now();
    now.checked_sub(Duration::from_secs(1)).unwrap_or(now)
});

impl Traffic {
    /// An exchange has ended that carried so many bytes both ways.
    pub(crate) fn exchanged(&self, bytes: u64, now: Instant) {
        self.last.store(since_start(now), Ordering::Relaxed);
        let bytes = u32::try_from(bytes).unwrap_or(LARGEST).min(LARGEST);
        let before = self.mean();
        let after = before - before / OF + bytes / OF;
        self.mean.store(after.max(1), Ordering::Relaxed);
    }

    /// Whether an exchange that begins `now` is one for a line. One that comes
    /// alone saves nothing by it, and may be a long one. `on_line`: the stream at
    /// hand is on a line already.
    pub(crate) fn suits_line(&self, on_line: bool, now: Instant) -> bool {
        let most = if on_line { MUCH } else { LITTLE };
        self.mean() < most && self.is_lively(now)
    }

    /// Whether an exchange ended a moment before `now`.
    fn is_lively(&self, now: Instant) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        let quiet = since_start(now).saturating_sub(last);
        last > 0 && u128::from(quiet) <= CLOSE.as_millis()
    }

    /// Bytes of an exchange, both ways, on average of the last.
    pub(crate) fn mean(&self) -> u32 {
        match self.mean.load(Ordering::Relaxed) {
            0 => FIRST,
            mean => mean,
        }
    }

    /// Counts bytes from and to visitors.
    pub(crate) fn moved(&self, received: u64, sent: u64) {
        self.bytes_in.fetch_add(received, Ordering::Relaxed);
        self.bytes_out.fetch_add(sent, Ordering::Relaxed);
    }

    /// Counts a request or stream that the backend did not take or did not
    /// bring to its end.
    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// The backend is out of its pool: the next one of its agent goes on with
    /// these counters.
    pub(crate) fn leave(&self) {
        self.live.store(false, Ordering::Relaxed);
    }

    /// The same numbers as the link protocol tells them.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            visitors_now: self.active.load(Ordering::Relaxed),
            visitors_ever: self.requests.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
        }
    }
}

/// In ms.
fn since_start(now: Instant) -> u64 {
    let passed = now.saturating_duration_since(*START).as_millis();
    u64::try_from(passed).unwrap_or(u64::MAX)
}

/// Whose counters they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Whose {
    name: TunnelName,
    kind: TunnelKind,
    agent: PublicKey,
}

#[derive(Debug)]
struct Kept {
    traffic: Arc<Traffic>,
    /// When it was opened last, counted in tunnels.
    opened: u64,
}

impl Kept {
    /// A backend has it, perhaps one that is out of its pool.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.traffic) > 1
    }
}

#[derive(Debug, Default)]
struct Book {
    /// Several where an identity serves a name with several processes.
    kept: HashMap<Whose, Vec<Kept>>,
    count: usize,
    opened: u64,
    /// The count at which those that are away are looked through.
    sweep_at: usize,
}

/// The counters of all tunnels.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Book>);

/// The tunnels of one name and kind, whoever serves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    /// Agents that serve it now.
    pub(crate) agents: u64,
    pub(crate) open: u64,
    pub(crate) ever: u64,
    pub(crate) failures: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) drops: u64,
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters for a tunnel that is opened, until [`Traffic::leave`].
    pub(crate) fn open(
        &self,
        name: &TunnelName,
        kind: TunnelKind,
        agent: PublicKey,
    ) -> Arc<Traffic> {
        let mut book = self.book();
        book.opened += 1;
        let opened = book.opened;
        let whose = Whose {
            name: name.clone(),
            kind,
            agent,
        };
        let kept = book.kept.entry(whose).or_default();
        let free = |kept: &&mut Kept| !kept.traffic.live.swap(true, Ordering::Relaxed);
        if let Some(known) = kept.iter_mut().find(free) {
            known.opened = opened;
            return Arc::clone(&known.traffic);
        }
        let traffic = Arc::new(Traffic {
            live: AtomicBool::new(true),
            ..Traffic::default()
        });
        kept.push(Kept {
            traffic: Arc::clone(&traffic),
            opened,
        });
        book.count += 1;
        book.sweep();
        traffic
    }

    /// All names and kinds, in order.
    pub(crate) fn sums(&self) -> BTreeMap<(TunnelName, &'static str), Sum> {
        let mut sums = BTreeMap::<_, Sum>::new();
        for (whose, kept) in &self.book().kept {
            let sum = sums.entry((whose.name.clone(), word(whose.kind)));
            let sum = sum.or_default();
            for Kept { traffic, .. } in kept {
                sum.add(traffic);
            }
        }
        sums
    }
}

impl Book {
    /// Forgets those that have been away the longest; looks seldom enough that
    /// opening a tunnel costs the same on average, however many there are.
    fn sweep(&mut self) {
        if self.count < self.sweep_at.max(2 * MAX_AWAY) {
            return;
        }
        let all = self.kept.values().flatten();
        let away = all.filter(|kept| !kept.is_in_use());
        let mut away: Vec<_> = away.map(|kept| kept.opened).collect();
        away.sort_unstable();
        let oldest = away.len().checked_sub(MAX_AWAY);
        let oldest = oldest.and_then(|at| away.get(at)).copied().unwrap_or(0);
        self.kept.retain(|_, kept| {
            kept.retain(|one| one.is_in_use() || one.opened >= oldest);
            !kept.is_empty()
        });
        self.count = self.kept.values().map(Vec::len).sum();
        self.sweep_at = self.count + MAX_AWAY;
    }
}

impl Sum {
    fn add(&mut self, traffic: &Traffic) {
        let counters = traffic.counters();
        self.agents += u64::from(traffic.live.load(Ordering::Relaxed));
        self.open += u64::from(counters.visitors_now);
        self.ever += counters.visitors_ever;
        self.failures += traffic.failures.load(Ordering::Relaxed);
        self.bytes_in += counters.bytes_in;
        self.bytes_out += counters.bytes_out;
        self.drops += traffic.drops.load(Ordering::Relaxed);
    }
}

/// What owners call a kind of tunnel.
pub(crate) fn word(kind: TunnelKind) -> &'static str {
    match kind {
        TunnelKind::Http => "http",
        TunnelKind::Tcp => "tcp",
        TunnelKind::Tls => "tls",
        TunnelKind::Udp => "udp",
        TunnelKind::Private => "private",
        TunnelKind::Other(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_forgets_and_one_large_answer_is_no_rule() {
        let (traffic, now) = (Traffic::default(), Instant::now());
        let exchanges = |bytes: u64, times: usize| {
            (0..times).for_each(|_| traffic.exchanged(bytes, now));
            traffic.mean()
        };
        assert_eq!(traffic.mean(), FIRST);
        assert!(exchanges(2_000, 16) < 64 * 1024);
        assert!(exchanges(2_000, 48) < 8 * 1024);
        assert!(exchanges(500_000, 1) < 64 * 1024);
        assert!(exchanges(u64::MAX, 1) > 256 * 1024);
        assert!(exchanges(2_000, 64) < 64 * 1024);
        assert!(exchanges(0, 1000) >= 1);
    }

    #[test]
    fn small_exchanges_that_follow_each_other_suit_a_line() {
        let (traffic, now) = (Traffic::default(), Instant::now());
        let suits = |now| [false, true].map(|on_line| traffic.suits_line(on_line, now));
        assert_eq!(suits(now), [false, false]);
        (0..64).for_each(|_| traffic.exchanged(1000, now));
        assert_eq!(suits(now), [true, true]);
        assert_eq!(suits(now + CLOSE), [true, true]);
        assert_eq!(suits(now + 2 * CLOSE), [false, false]);
        // A request that came before the last one ended.
        assert_eq!(suits(now.checked_sub(CLOSE).unwrap()), [true, true]);
        (0..64).for_each(|_| traffic.exchanged(100_000, now));
        assert_eq!(suits(now), [false, true]);
        (0..64).for_each(|_| traffic.exchanged(1_000_000, now));
        assert_eq!(suits(now), [false, false]);
    }

    const ANN: PublicKey = PublicKey([1; 32]);
    const BOB: PublicKey = PublicKey([2; 32]);

    fn name(text: &str) -> TunnelName {
        TunnelName::parse(text).unwrap()
    }

    #[test]
    fn an_agent_that_comes_back_goes_on_with_its_counters() {
        let ledger = Ledger::default();
        let open = |agent, kind| ledger.open(&name("db"), kind, agent);
        let first = open(ANN, TunnelKind::Tcp);
        first.moved(3, 4);
        first.failed();
        // Live twice, of another kind, of another agent: each for itself.
        for other in [
            open(ANN, TunnelKind::Tcp),
            open(ANN, TunnelKind::Udp),
            open(BOB, TunnelKind::Tcp),
        ] {
            assert_eq!(other.counters(), Counters::default());
            other.moved(10, 0);
        }
        let sum = |kind| ledger.sums()[&(name("db"), kind)];
        assert_eq!((sum("tcp").agents, sum("tcp").bytes_in), (3, 23));
        first.leave();
        drop(first);
        assert_eq!((sum("tcp").agents, sum("tcp").bytes_in), (2, 23));
        let again = open(ANN, TunnelKind::Tcp);
        assert_eq!((again.counters().bytes_in, sum("tcp").failures), (3, 1));
        assert_eq!((sum("udp").agents, sum("udp").bytes_in), (1, 10));
    }

    #[test]
    fn names_without_end_cost_bounded_memory_and_nobody_live_anything() {
        let ledger = Ledger::default();
        let open = |number: usize| ledger.open(&name(&format!("t{number}")), TunnelKind::Tcp, ANN);
        let live: Vec<_> = (0..10).map(open).collect();
        live[0].moved(7, 7);
        for number in 10..10 * MAX_AWAY {
            open(number).leave();
        }
        let sums = ledger.sums();
        assert!(sums.len() <= 2 * MAX_AWAY + live.len(), "{}", sums.len());
        assert_eq!(sums[&(name("t0"), "tcp")].bytes_in, 7);
        let last = format!("t{}", 10 * MAX_AWAY - 1);
        assert!(sums.contains_key(&(name(&last), "tcp")));
        assert!(!sums.contains_key(&(name("t10"), "tcp")));
    }
}
