//! The log: on stderr, as text or JSON, at a level.
//!
//! A JSON line begins like a line of the access log, which stands in the same
//! stream: `time`, then `kind`, so that one reader takes both.

use std::fmt;

use adit_config::{LogFormat, LogLevel};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::terminal;

/// Where events come from that tell who did what to whom.
const AUDIT: &str = "adit::audit";

/// Starts the log. A second call has no effect.
///
/// Other crates' messages pass from `warn` up, whatever the level of ours.
pub(crate) fn start<W>(format: LogFormat, level: LogLevel, to: W)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
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
        .with_writer(to);
    let started = match format {
        LogFormat::Text => log
            .with_ansi(terminal::note_paint() == adit_config::Paint::Colour)
            .try_init(),
        LogFormat::Json => log.event_format(Json).try_init(),
    };
    drop(started);
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
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

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
