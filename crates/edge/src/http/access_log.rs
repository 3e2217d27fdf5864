//! One line a request, written beside the data path.
//!
//! Workers append finished lines to a bounded buffer under a short lock; one
//! thread of the log's own writes them out, many at a time. When the reader of
//! the log is too slow, lines are dropped and counted, and no request waits.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_config::LogFormat;

use super::record::Record;
use super::respond::civil;
use super::visitor::AddressText;

/// Most bytes of lines that wait to be written.
const CAPACITY: usize = 1024 * 1024;
/// So many are written without waiting for more.
const ENOUGH: usize = 32 * 1024;
/// How long lines are gathered.
const GATHER: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Queue {
    lines: Vec<u8>,
    dropped: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lines look like.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// For people or for programs.
    pub format: LogFormat,
    /// Whether queries are shown, which may hold what visitors keep secret.
    pub queries: bool,
}

/// The access log. Dropping it writes what waits.
#[derive(Debug)]
pub struct AccessLog {
    form: Form,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// Starts a log that writes to `sink`.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn start(form: Form, sink: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let shared = Arc::<Shared>::default();
        let for_writer = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("access-log".into());
        let writer = thread.spawn(move || write_out(&for_writer, sink))?;
        Ok(Arc::new(Self {
            form,
            shared,
            writer: Some(writer),
        }))
    }

    /// Adds a line; never waits.
    pub(super) fn add(&self, record: &Record<'_>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.unwrap_or_default();
            let shown = record.shown(self.form.queries);
            match self.form.format {
                LogFormat::Json => json(line, &shown, now),
                LogFormat::Text => text(line, &shown, now),
            }
            line.push(b'\n');
            self.push(line);
        });
    }

    fn push(&self, line: &[u8]) {
        let mut queue = self.shared.lock();
        if queue.lines.len() + line.len() > CAPACITY {
            queue.dropped += 1;
            return;
        }
        let before = queue.lines.len();
        queue.lines.extend_from_slice(line);
        let after = queue.lines.len();
        drop(queue);
        // The writer sleeps until the first line, then until there are enough.
        if before == 0 || (before < ENOUGH && after >= ENOUGH) {
            self.shared.more.notify_one();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.more.notify_one();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the access log's thread panicked");
        }
    }
}

fn write_out(shared: &Shared, mut sink: impl Write) {
    let mut batch = Vec::new();
    loop {
        let mut queue = shared.lock();
        while queue.lines.is_empty() && !queue.closed {
            queue = wait(shared.more.wait(queue));
        }
        if queue.lines.len() < ENOUGH && !queue.closed {
            queue = match shared.more.wait_timeout(queue, GATHER) {
                Ok((queue, _)) => queue,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        std::mem::swap(&mut queue.lines, &mut batch);
        let (dropped, closed) = (std::mem::take(&mut queue.dropped), queue.closed);
        drop(queue);
        if let Err(error) = sink.write_all(&batch).and_then(|()| sink.flush()) {
            tracing::warn!(%error, "access log cannot be written");
        }
        batch.clear();
        if dropped > 0 {
            tracing::warn!(dropped, "access log is too slow, lines were dropped");
        }
        if closed && shared.lock().lines.is_empty() {
            return;
        }
    }
}

fn wait<'q>(
    result: Result<MutexGuard<'q, Queue>, PoisonError<MutexGuard<'q, Queue>>>,
) -> MutexGuard<'q, Queue> {
    result.unwrap_or_else(PoisonError::into_inner)
}

fn json(line: &mut Vec<u8>, record: &Record<'_>, now: Duration) {
    line.extend_from_slice(b"{\"time\":\"");
    timestamp(line, now);
    line.extend_from_slice(b"\",\"kind\":\"access\",\"client\":\"");
    address(line, record);
    line.push(b'"');
    member(line, "id", Some(record.id));
    member(line, "method", Some(record.method));
    member(line, "host", Some(record.host));
    member(line, "path", Some(record.path));
    member(line, "query", record.query);
    line.extend_from_slice(b",\"status\":");
    number(line, record.status.into(), 1);
    line.extend_from_slice(b",\"received\":");
    number(line, record.received, 1);
    line.extend_from_slice(b",\"sent\":");
    number(line, record.sent, 1);
    line.extend_from_slice(b",\"ms\":");
    millis(line, record.took);
    if let Some(waited) = record.waited {
        line.extend_from_slice(b",\"wait_ms\":");
        millis(line, waited);
    }
    member(line, "backend", record.backend.map(str::as_bytes));
    member(line, "user_agent", record.user_agent);
    member(line, "referer", record.referer);
    if let Some(fault) = record.fault {
        member(line, "fault", Some(fault.to_string().as_bytes()));
    }
    line.push(b'}');
}

fn text(line: &mut Vec<u8>, record: &Record<'_>, now: Duration) {
    timestamp(line, now);
    line.push(b' ');
    address(line, record);
    line.push(b' ');
    word(line, record.host);
    line.extend_from_slice(b" \"");
    escaped(line, record.method);
    line.push(b' ');
    escaped(line, record.path);
    if let Some(query) = record.query {
        line.push(b'?');
        escaped(line, query);
    }
    line.extend_from_slice(b"\" ");
    for count in [record.status.into(), record.received, record.sent] {
        number(line, count, 1);
        line.push(b' ');
    }
    millis(line, record.took);
    line.extend_from_slice(b"ms ");
    word(line, record.backend.unwrap_or_default().as_bytes());
    line.push(b' ');
    word(line, record.id);
    if let Some(fault) = record.fault {
        line.extend_from_slice(b" (");
        escaped(line, fault.to_string().as_bytes());
        line.push(b')');
    }
}

fn address(line: &mut Vec<u8>, record: &Record<'_>) {
    line.extend_from_slice(AddressText::of(record.client).as_str().as_bytes());
}

/// A value that is never empty and holds no blank.
fn word(line: &mut Vec<u8>, value: &[u8]) {
    if value.is_empty() {
        line.push(b'-');
    }
    escaped(line, value);
}

fn member(line: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    if let Some(value) = value {
        line.extend_from_slice(b",\"");
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(b"\":\"");
        escaped(line, value);
        line.push(b'"');
    }
}

/// Appends bytes as they stand inside a JSON string; what is no printable
/// ASCII becomes the escape of its byte, so that no terminal is fooled.
fn escaped(line: &mut Vec<u8>, value: &[u8]) {
    let plain = |b: &u8| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\');
    if value.iter().all(plain) {
        return line.extend_from_slice(value);
    }
    for byte in value {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', *byte]),
            b' '..=b'~' => line.push(*byte),
            _ => {
                line.extend_from_slice(b"\\u00");
                for nibble in [byte >> 4, byte & 0xf] {
                    line.push(b"0123456789abcdef"[usize::from(nibble)]);
                }
            }
        }
    }
}

/// A number of at least `width` digits.
fn number(line: &mut Vec<u8>, mut value: u64, width: usize) {
    let start = line.len();
    while value > 0 || line.len() - start < width {
        line.push(b'0' + u8::try_from(value % 10).unwrap_or(0));
        value /= 10;
    }
    if let Some(digits) = line.get_mut(start..) {
        digits.reverse();
    }
}

/// Milliseconds with three decimals.
fn millis(line: &mut Vec<u8>, time: Duration) {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    number(line, micros / 1000, 1);
    line.push(b'.');
    number(line, micros % 1000, 3);
}

/// RFC 3339, in milliseconds, UTC.
fn timestamp(line: &mut Vec<u8>, now: Duration) {
    let seconds = now.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let parts = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (seconds / 3600 % 24, 2, b':'),
        (seconds / 60 % 60, 2, b':'),
        (seconds % 60, 2, b'.'),
        (now.subsec_millis().into(), 3, b'Z'),
    ];
    for (value, width, end) in parts {
        number(line, value, width);
        line.push(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::record::Fault;

    const PLAIN: Form = Form {
        format: LogFormat::Text,
        queries: false,
    };

    fn record() -> Record<'static> {
        Record {
            id: b"id1",
            client: [192, 0, 2, 1].into(),
            method: b"GET",
            host: b"a.test",
            path: b"/p\"\x1b",
            query: Some(b"q=1"),
            user_agent: Some(b"curl"),
            referer: None,
            status: 200,
            received: 10,
            sent: 20,
            took: Duration::from_micros(1500),
            waited: Some(Duration::from_micros(1000)),
            backend: Some("app@x"),
            fault: Some(&Fault::Text("why")),
        }
    }

    #[test]
    fn json_lines_are_json() {
        let mut line = Vec::new();
        json(&mut line, &record(), Duration::from_millis(784_111_777_008));
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["time"], "1994-11-06T08:49:37.008Z");
        assert_eq!(value["path"], "/p\"\u{1b}");
        assert_eq!(value["ms"], 1.5);
        assert_eq!(value["wait_ms"], 1.0);
        assert_eq!(value["backend"], "app@x");
        assert_eq!(value["fault"], "why");
    }

    #[test]
    fn text_lines_are_one_line() {
        let mut line = Vec::new();
        text(&mut line, &record(), Duration::from_secs(0));
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "1970-01-01T00:00:00.000Z 192.0.2.1 a.test \"GET /p\\\"\\u001b?q=1\" \
             200 10 20 1.500ms app@x id1 (why)"
        );
    }

    #[test]
    fn queries_are_shown_to_who_asks_for_them_alone() {
        for (queries, expected) in [(false, 0), (true, 2)] {
            let sink = Sink::default();
            let format = LogFormat::Json;
            let log = AccessLog::start(Form { format, queries }, sink.clone()).unwrap();
            log.add(&Record {
                query: Some(b"token=abc"),
                referer: Some(b"http://a.test/from?token=abc"),
                ..record()
            });
            drop(log);
            let line = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
            assert_eq!(line.matches("token=abc").count(), expected, "{line}");
            assert!(line.contains("http://a.test/from"), "{line}");
        }
    }

    /// A sink that can be held up.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn dropping_the_log_writes_what_waits() {
        let sink = Sink::default();
        let log = AccessLog::start(PLAIN, sink.clone()).unwrap();
        for _ in 0..1000 {
            log.add(&record());
        }
        drop(log);
        let written = sink.0.lock().unwrap();
        assert_eq!(written.iter().filter(|b| **b == b'\n').count(), 1000);
    }

    #[test]
    fn a_stuck_reader_costs_lines_not_memory() {
        let sink = Sink::default();
        let log = AccessLog::start(PLAIN, sink.clone()).unwrap();
        let stuck = sink.0.lock().unwrap();
        for _ in 0..100_000 {
            log.add(&record());
        }
        assert!(log.shared.lock().lines.len() <= CAPACITY);
        drop(stuck);
        drop(log);
        let written = sink.0.lock().unwrap().len();
        assert!(written > 0 && written <= 3 * CAPACITY, "{written}");
    }
}
