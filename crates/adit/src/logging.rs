//! The log: on stderr, as text or JSON, at a level.

use adit_config::{LogFormat, LogLevel};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::terminal;

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
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    drop(started);
}
