//! The access log: one line a request, and one a visitor of any other door,
//! written beside the data path.
//!
//! Workers format their lines without allocating and push them into a
//! [`Lines`]: when the reader of the log is too slow, lines are dropped and
//! counted, and nobody waits.

mod visit;

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_config::LogFormat;

pub(crate) use self::visit::Told;
use crate::http::civil;
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
    pub(crate) form: Form,
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

    /// Adds the line that `write` makes of this moment; never waits.
    pub(crate) fn push(&self, write: impl FnOnce(&mut Vec<u8>, Duration)) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            write(line, now());
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

/// An address as text.
pub(crate) fn address(line: &mut Vec<u8>, client: IpAddr) {
    // Writing to a Vec cannot fail.
    let _ = write!(line, "{client}");
}

/// A value that is never empty and holds no blank.
pub(crate) fn word(line: &mut Vec<u8>, value: &[u8]) {
    if value.is_empty() {
        line.push(b'-');
    }
    escaped(line, value);
}

pub(crate) fn member(line: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
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
pub(crate) fn escaped(line: &mut Vec<u8>, value: &[u8]) {
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
pub(crate) fn number(line: &mut Vec<u8>, mut value: u64, width: usize) {
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
pub(crate) fn millis(line: &mut Vec<u8>, time: Duration) {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    number(line, micros / 1000, 1);
    line.push(b'.');
    number(line, micros % 1000, 3);
}

/// RFC 3339, in milliseconds, UTC.
pub(crate) fn timestamp(line: &mut Vec<u8>, now: Duration) {
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

/// Where the lines of a test go; whoever locks it holds them up.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Sink(pub(crate) Arc<std::sync::Mutex<Vec<u8>>>);

#[cfg(test)]
impl Sink {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[cfg(test)]
impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
