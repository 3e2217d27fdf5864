//! Lines on their way out, for which nobody waits.
//!
//! Whoever has a line appends it to a bounded buffer under a short lock; one
//! thread of the queue's own writes them out, many at a time. When the reader
//! on the other side is too slow, or stops, lines are dropped and counted, and
//! the count is told once there is room again.
//!
//! Invariants: [`Lines::push`] never waits for the sink, whatever the sink
//! does; neither does the end, for longer than it was given. A thread that is
//! stuck in its sink is left behind, never joined.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most bytes of lines that wait to be written; as many again are being
/// written.
const CAPACITY: usize = 1024 * 1024;
/// So many are written without waiting for more.
const ENOUGH: usize = 32 * 1024;
/// How long the end of a queue may take when nobody says otherwise.
pub const LAST_LINES: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Queue {
    lines: Vec<u8>,
    dropped: u64,
    /// Bytes ever taken in, and how many of them have left.
    taken: u64,
    left: u64,
    /// Somebody waits: lines are not gathered any longer.
    hurry: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
    written: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue of lines with the thread that writes them. Dropping it writes what
/// waits, within [`LAST_LINES`].
#[derive(Debug)]
pub struct Lines {
    shared: Arc<Shared>,
}

impl Lines {
    /// Starts a queue that writes to `sink` on a thread with this name.
    ///
    /// A line waits up to `gather` for others to be written with. `dropped`
    /// appends the line that tells how many were dropped; a batch that the sink
    /// refuses counts as dropped too.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn start(
        name: &str,
        gather: Duration,
        mut sink: impl Write + Send + 'static,
        dropped: impl Fn(u64, &mut Vec<u8>) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let for_writer = Arc::clone(&shared);
        // Not kept: who joins a thread that is stuck is stuck himself.
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || write_out(&for_writer, gather, &mut sink, dropped))?;
        Ok(Self { shared })
    }

    /// Adds a line, or several, with the newline at its end; never waits. What
    /// comes after [`Lines::close`] is left out.
    pub fn push(&self, line: &[u8]) {
        let mut queue = self.shared.lock();
        if queue.closed {
            return;
        }
        if queue.lines.len() + line.len() > CAPACITY {
            queue.dropped += 1;
            return;
        }
        let before = queue.lines.len();
        queue.lines.extend_from_slice(line);
        let after = queue.lines.len();
        queue.taken += line.len() as u64;
        drop(queue);
        // The writer sleeps until the first line, then until there are enough.
        if before == 0 || (before < ENOUGH && after >= ENOUGH) {
            self.shared.more.notify_one();
        }
    }

    /// Waits until everything that was pushed so far has been written, at most
    /// that long; whether it was.
    pub fn flush(&self, within: Duration) -> bool {
        self.wait(self.shared.lock(), within)
    }

    /// The end: as [`Lines::flush`], and nothing more is taken in.
    pub fn close(&self, within: Duration) -> bool {
        let mut queue = self.shared.lock();
        queue.closed = true;
        self.wait(queue, within)
    }

    fn wait(&self, mut queue: MutexGuard<'_, Queue>, within: Duration) -> bool {
        let (begun, until) = (Instant::now(), queue.taken);
        queue.hurry |= queue.left < until;
        self.shared.more.notify_one();
        while queue.left < until {
            let rest = within.saturating_sub(begun.elapsed());
            if rest.is_zero() {
                return false;
            }
            queue = wait_for(&self.shared.written, queue, rest);
        }
        true
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.close(LAST_LINES);
    }
}

fn wait_for<'q>(
    condition: &Condvar,
    queue: MutexGuard<'q, Queue>,
    within: Duration,
) -> MutexGuard<'q, Queue> {
    match condition.wait_timeout(queue, within) {
        Ok((queue, _)) => queue,
        Err(poisoned) => poisoned.into_inner().0,
    }
}

fn write_out(
    shared: &Shared,
    gather: Duration,
    sink: &mut impl Write,
    tell: impl Fn(u64, &mut Vec<u8>),
) {
    let mut batch = Vec::new();
    loop {
        let mut queue = shared.lock();
        while queue.lines.is_empty() && !queue.closed {
            let more = shared.more.wait(queue);
            queue = more.unwrap_or_else(PoisonError::into_inner);
        }
        if queue.lines.len() < ENOUGH && !gather.is_zero() && !queue.hurry && !queue.closed {
            queue = wait_for(&shared.more, queue, gather);
        }
        std::mem::swap(&mut queue.lines, &mut batch);
        let (dropped, taken) = (std::mem::take(&mut queue.dropped), queue.taken);
        queue.hurry = false;
        drop(queue);
        let end = batch.len();
        if dropped > 0 {
            tell(dropped, &mut batch);
        }
        let written = sink.write_all(&batch).and_then(|()| sink.flush());
        batch.truncate(end);
        let lost = match written {
            Ok(()) => 0,
            Err(_) => dropped + batch.iter().filter(|byte| **byte == b'\n').count() as u64,
        };
        batch.clear();
        let mut queue = shared.lock();
        queue.dropped += lost;
        queue.left = taken;
        shared.written.notify_all();
        if queue.closed && queue.lines.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// A sink that says when it was entered, and stays stuck until it is told
    /// how to go on.
    struct Gate {
        entered: Sender<Vec<u8>>,
        go_on: Receiver<io::Result<()>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.send(bytes.to_vec());
            let way = self.go_on.recv().unwrap_or(Ok(()));
            way.map(|()| bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Ends = (Lines, Receiver<Vec<u8>>, Sender<io::Result<()>>);

    fn gated() -> Ends {
        let (entered, batches) = channel();
        let (open, go_on) = channel();
        let tell = |dropped, line: &mut Vec<u8>| {
            line.extend_from_slice(format!("{dropped} lines were dropped\n").as_bytes());
        };
        let sink = Gate { entered, go_on };
        let lines = Lines::start("test", Duration::ZERO, sink, tell).unwrap();
        (lines, batches, open)
    }

    fn next(batches: &Receiver<Vec<u8>>) -> String {
        String::from_utf8(batches.recv_timeout(LONG).unwrap()).unwrap()
    }

    #[test]
    fn lines_come_out_in_their_order_and_flush_waits_for_them() {
        let (lines, batches, open) = gated();
        drop(open);
        let mut expected = String::new();
        for n in 0..1000 {
            let line = format!("{n}\n");
            lines.push(line.as_bytes());
            expected += &line;
        }
        assert!(lines.flush(LONG));
        let seen: String = batches
            .try_iter()
            .map(|b| String::from_utf8(b).unwrap())
            .collect();
        assert_eq!(seen, expected);
        assert!(lines.flush(Duration::ZERO), "nothing waits");
        assert!(lines.close(LONG));
        lines.push(b"late\n");
        drop(lines);
        assert!(batches.recv().is_err(), "the thread has ended");
    }

    #[test]
    fn a_line_that_is_gathered_is_flushed_at_once() {
        let (sent, seen) = channel();
        let (_, go_on) = channel();
        let sink = Gate {
            entered: sent,
            go_on,
        };
        let lines = Lines::start("test", LONG, sink, |_, _| {}).unwrap();
        lines.push(b"a\n");
        let begun = Instant::now();
        assert!(lines.flush(LONG));
        assert!(begun.elapsed() < LONG / 2);
        assert_eq!(next(&seen), "a\n");
    }

    #[test]
    fn a_stuck_sink_costs_lines_which_are_counted() {
        let (lines, batches, open) = gated();
        lines.push(b"first\n");
        assert_eq!(next(&batches), "first\n");
        let line = [[b'x'; 1023].as_slice(), b"\n"].concat();
        for _ in 0..CAPACITY / line.len() + 7 {
            lines.push(&line);
        }
        assert_eq!(lines.shared.lock().lines.len(), CAPACITY);
        assert!(!lines.flush(Duration::from_millis(1)));
        open.send(Ok(())).unwrap();
        let second = next(&batches);
        assert!(second.starts_with("xxx"));
        assert_eq!(second.len(), CAPACITY + "7 lines were dropped\n".len());
        assert!(second.ends_with("x\n7 lines were dropped\n"));
        lines.push(b"there is room\n");
        open.send(Ok(())).unwrap();
        assert_eq!(next(&batches), "there is room\n", "told once");
    }

    #[test]
    fn what_the_sink_refuses_is_counted_with_the_rest() {
        let (lines, batches, open) = gated();
        lines.push(b"a\nb\n");
        next(&batches);
        open.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        assert!(lines.flush(LONG), "nothing waits any longer");
        lines.push(b"c\n");
        assert_eq!(next(&batches), "c\n2 lines were dropped\n");
        open.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        assert!(lines.flush(LONG));
        lines.push(b"d\n");
        assert_eq!(next(&batches), "d\n3 lines were dropped\n");
    }

    #[test]
    fn dropping_a_stuck_queue_returns() {
        let (lines, batches, open) = gated();
        lines.push(b"first\n");
        next(&batches);
        lines.push(b"second\n");
        let begun = Instant::now();
        drop(lines);
        let took = begun.elapsed();
        assert!(took >= LAST_LINES && took < LAST_LINES * 10, "{took:?}");
        // The thread was left behind; its sink goes on, and so does it.
        drop(open);
        assert_eq!(next(&batches), "second\n");
        assert!(batches.recv().is_err(), "and ends");
    }
}
