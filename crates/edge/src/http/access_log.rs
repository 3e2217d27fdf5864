//! One line a request, written beside the data path.
//!
//! Workers format their lines without allocating and push them into a
//! [`Lines`]: when the reader of the log is too slow, lines are dropped and
//! counted, and no request waits.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_config::LogFormat;

use super::record::Record;
use super::respond::civil;
use super::visitor::AddressText;
use crate::lines::Lines;

/// How long lines are gathered.
const GATHER: Duration = Duration::from_millis(50);

/// What lines look like.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// For people or for programs.
    pub format: LogFormat,
    /// Whether queries are shown, which may hold what visitors keep secret.
    pub queries: bool,
}

/// The access log. Dropping it writes what waits, within a second.
#[derive(Debug)]
pub struct AccessLog {
    form: Form,
    lines: Lines,
}

impl AccessLog {
    /// Starts a log that writes to `sink`.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn start(form: Form, sink: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let tell = move |count, line: &mut Vec<u8>| dropped(line, form.format, count, now());
        let lines = Lines::start("access-log", GATHER, sink, tell)?;
        Ok(Arc::new(Self { form, lines }))
    }

    /// Adds a line; never waits.
    pub(super) fn add(&self, record: &Record<'_>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            let now = now();
            let shown = record.shown(self.form.queries);
            match self.form.format {
                LogFormat::Json => json(line, &shown, now),
                LogFormat::Text => text(line, &shown, now),
            }
            line.push(b'\n');
            self.lines.push(line);
        });
    }
}

/// Since 1970.
fn now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

/// The line that stands for those that were dropped; it begins as lines of
/// the log do, beside which it stands.
fn dropped(line: &mut Vec<u8>, format: LogFormat, count: u64, now: Duration) {
    let what = "the access log's reader is too slow, lines were dropped";
    let rest = match format {
        LogFormat::Json => {
            line.extend_from_slice(b"{\"time\":\"");
            format!(
                "\",\"kind\":\"log\",\"level\":\"WARN\",\"from\":\"adit\",\
                 \"message\":\"{what}\",\"dropped\":{count}}}\n"
            )
        }
        LogFormat::Text => format!("  WARN adit: {what} dropped={count}\n"),
    };
    timestamp(line, now);
    line.extend_from_slice(rest.as_bytes());
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
    use std::sync::Mutex;

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
    fn a_stuck_reader_costs_lines_which_are_counted() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let sink = Sink::default();
            let queries = false;
            let log = AccessLog::start(Form { format, queries }, sink.clone()).unwrap();
            let stuck = sink.0.lock().unwrap();
            for _ in 0..100_000 {
                log.add(&record());
            }
            drop(stuck);
            drop(log);
            let written = sink.0.lock().unwrap();
            let text = String::from_utf8_lossy(&written);
            let all = text.lines().count();
            let told: Vec<u64> = text.lines().filter_map(|l| told(l, format)).collect();
            let kept = u64::try_from(all - told.len()).unwrap();
            assert!(kept > 0 && !told.is_empty(), "{kept} {told:?}");
            assert_eq!(kept + told.iter().sum::<u64>(), 100_000);
        }
    }

    fn told(line: &str, format: LogFormat) -> Option<u64> {
        if !line.contains("lines were dropped") {
            return None;
        }
        if format == LogFormat::Text {
            return line.split_once(" dropped=")?.1.parse().ok();
        }
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["kind"], "log");
        line["dropped"].as_u64()
    }
}
