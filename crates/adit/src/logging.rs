//! The log: on stderr, as text or JSON, at a level.
//!
//! A JSON line begins like a line of the access log, which stands in the same
//! stream: `time`, then `kind`, so that one reader takes both.
//!
//! Whoever logs never waits for who reads: lines go through a queue with a
//! thread of its own. So the end of the process waits for that one, for a
//! while: [`AtEnd`].

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use adit_config::{LogFormat, LogLevel};
use adit_edge::lines::{LAST_LINES, Lines};
use adit_model::Code;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::failure::Failure;
use crate::{Outcome, terminal};

/// Where events come from that tell who did what to whom.
const AUDIT: &str = "adit::audit";

/// The lines of this process; it has one log, from its start to its end.
static LOG: OnceLock<Lines> = OnceLock::new();

/// Starts the log. A second call has no effect.
///
/// Other crates' messages pass from `warn` up, whatever the level of ours.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn start(
    format: LogFormat,
    level: LogLevel,
    to: impl Write + Send + 'static,
) -> Outcome {
    let tell = move |count, line: &mut Vec<u8>| dropped(line, format, count);
    let lines = Lines::start("log", Duration::ZERO, to, tell)
        .map_err(|error| Failure::new(Code::RUNTIME_FAILED, format!("no thread: {error}")))?;
    let lines = LOG.get_or_init(|| lines);
    let ours = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let others = if level == LogLevel::Error {
        "error"
    } else {
        "warn"
    };
    // What an agent has to say is told as events, in words of this program;
    // its own lines come beside them only where somebody looks for details.
    let agents = match level {
        LogLevel::Debug | LogLevel::Trace => ours,
        LogLevel::Error | LogLevel::Warn | LogLevel::Info => "error",
    };
    let filter = EnvFilter::new(format!("{others},adit={ours},adit_agent={agents}"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Pushed(lines));
    let started = match format {
        LogFormat::Text => log
            .with_ansi(terminal::note_paint() == adit_config::Paint::Colour)
            .try_init(),
        LogFormat::Json => log.event_format(Json).try_init(),
    };
    drop(started);
    log_panics();
    Ok(())
}

/// Waits until what was logged so far has been written, at most that long.
pub(crate) fn flush(within: Duration) {
    if let Some(lines) = LOG.get() {
        lines.flush(within);
    }
}

/// Tells a person something on stderr, below the lines logged so far.
pub(crate) fn note(text: &str) {
    match LOG.get() {
        Some(lines) => lines.push(format!("{text}\n").as_bytes()),
        None => terminal::note(text),
    }
}

/// Lives as long as `main`: what was logged before its end is written, unless
/// the reader is stuck.
pub(crate) struct AtEnd;

impl Drop for AtEnd {
    fn drop(&mut self) {
        flush(LAST_LINES);
    }
}

/// A panic in a task ends that task alone, and the place where it is told by
/// default is one where whoever serves could get stuck.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        let at = panic.location().map(ToString::to_string);
        let at = at.unwrap_or_default();
        let payload = panic.payload();
        let what = payload.downcast_ref::<&str>().copied();
        let what = what.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let what = what.unwrap_or_default();
        tracing::error!(target: "adit", thread = name, at, "panicked: {what}");
        let trace = std::backtrace::Backtrace::capture();
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            note(&trace.to_string());
        }
    }));
}

/// Takes each event as the one piece in which it is written.
struct Pushed(&'static Lines);

impl Write for Pushed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line that stands for those that were dropped.
fn dropped(line: &mut Vec<u8>, format: LogFormat, count: u64) {
    let what = "the log's reader is too slow, lines were dropped";
    let mut time = String::new();
    // Writing to a string does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let text = match format {
        LogFormat::Text => format!("{time}  WARN adit: {what} dropped={count}\n"),
        LogFormat::Json => format!(
            "{{\"time\":\"{time}\",\"kind\":\"log\",\"level\":\"WARN\",\"from\":\"adit\",\
             \"message\":\"{what}\",\"dropped\":{count}}}\n"
        ),
    };
    line.extend_from_slice(text.as_bytes());
}

/// One JSON object a line.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let facts = event.metadata();
        line.write_str("{\"time\":\"")?;
        SystemTime.format_time(&mut line)?;
        let kind = if facts.target() == AUDIT {
            "audit"
        } else {
            "log"
        };
        write!(
            line,
            "\",\"kind\":\"{kind}\",\"level\":\"{}\"",
            facts.level()
        )?;
        member(&mut line, "from", &facts.target().into())?;
        let mut fields = Fields { line, done: Ok(()) };
        event.record(&mut fields);
        let Fields { mut line, done } = fields;
        done?;
        line.write_str("}\n")
    }
}

fn member(line: &mut Writer<'_>, name: &str, value: &Value) -> fmt::Result {
    write!(line, ",{}:{value}", Value::from(name))
}

/// Writes each field as a member.
struct Fields<'w> {
    line: Writer<'w>,
    done: fmt::Result,
}

impl Fields<'_> {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        if self.done.is_ok() {
            self.done = member(&mut self.line, field.name(), &value.into());
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

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

    impl<'w> MakeWriter<'w> for Sink {
        type Writer = Self;

        fn make_writer(&'w self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn json_lines_begin_as_those_of_the_access_log() {
        let sink = Sink::default();
        let log = tracing_subscriber::fmt()
            .event_format(Json)
            .with_writer(sink.clone())
            .finish();
        tracing::subscriber::with_default(log, || {
            tracing::warn!(target: "adit", code = %"ADIT-3001", count = 3, target = "a \"b\"", "lost\n");
            tracing::info!(target: AUDIT, event = "admission", known = true);
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        for line in &lines {
            assert!(line.starts_with("{\"time\":\"20"), "{line}");
            let (_, after) = line.split_once("Z\",").unwrap();
            assert!(after.starts_with("\"kind\":\""), "{line}");
        }
        let told: Vec<Value> = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let expected = [
            ("kind", "log".into()),
            ("level", "WARN".into()),
            ("from", "adit".into()),
            ("message", "lost\n".into()),
            ("code", "ADIT-3001".into()),
            ("count", Value::from(3)),
            ("target", "a \"b\"".into()),
        ];
        for (name, value) in expected {
            assert_eq!(told[0][name], value, "{name}");
        }
        assert_eq!(told[1]["kind"], "audit");
        assert_eq!(told[1]["known"], true);
    }
}
