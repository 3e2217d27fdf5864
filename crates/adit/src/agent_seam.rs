//! Where commands meet the agent.

use std::sync::Arc;

use adit_agent::config::AgentConfig;
use adit_agent::{AgentError, AgentSettings, Carriage, PinFrom};
use adit_config::LogLevel;
use adit_link::proxy::Proxy;
use adit_link::workers::default_count;
use adit_model::{Carrier, Code};
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::settings::{self, LogOptions, Remarks};
use crate::view::{self, Screen};
use crate::{Outcome, ask, logging, runtime, way_out};

/// Events that may wait to be shown.
const EVENTS: usize = 256;

/// Runs an agent until a signal; the log is quiet beside a live view, unless its
/// level was asked for.
///
/// # Errors
/// Why it ended by itself.
pub(crate) fn publish(config: AgentConfig, log: LogOptions, remarks: &Remarks) -> Outcome {
    let screen = Screen::new();
    let level = match log.log_level {
        None if screen.is_live() => LogLevel::Error,
        _ => config.log.level,
    };
    logging::start(config.log.format, level, screen.log())?;
    settings::warn_unknown_variables();
    remarks.log();
    runtime::run(run(config, screen))
}

/// Shows what happens.
async fn run(config: AgentConfig, screen: Arc<Screen>) -> Outcome {
    let stop = runtime::stop_on_signal()?;
    let settings = agent_settings(config, &screen);
    let (events, shown) = mpsc::channel(EVENTS);
    let view = view::start(shown, screen)?;
    let ended = adit_agent::run(settings, events, stop).await;
    view.ended().await;
    ended.map_err(failure)
}

fn agent_settings(config: AgentConfig, screen: &Arc<Screen>) -> AgentSettings {
    AgentSettings {
        join: config.agent.edge,
        data: config.agent.data,
        tunnels: config.tunnels,
        forwards: config.forwards,
        allowed_targets: config.agent.allowed_targets,
        carriage: carriage(config.agent.carrier, config.agent.proxy),
        pin: ask::pin(config.agent.pin, screen),
        workers: match config.agent.workers {
            0 => default_count(),
            count => count,
        },
        drain: config.agent.drain,
    }
}

/// How the edge is reached, by the configuration and the environment.
pub(crate) fn carriage(only: Option<Carrier>, proxy: Option<Proxy>) -> Carriage {
    Carriage {
        only,
        proxy,
        web_proxy: way_out::from_environment(),
    }
}

/// Proves a join string to its edge and remembers it.
///
/// # Errors
/// Why not; nothing was changed then.
pub(crate) async fn join(
    join: adit_model::JoinString,
    data: std::path::PathBuf,
    pin: PinFrom,
    carriage: Carriage,
) -> Result<adit_model::PublicKey, Failure> {
    let (edge, _) = adit_agent::join(join, data, pin, carriage)
        .await
        .map_err(failure)?;
    Ok(edge)
}

/// An agent's error as a failure of a command.
pub(crate) fn failure(error: AgentError) -> Failure {
    let code = error.code();
    match error {
        AgentError::Refused(refusal) => {
            Failure::with(code, code.title, refusal.remedies().join("\n"))
        }
        AgentError::WrongEdge {
            expected,
            presented,
        } => Failure::new(
            Code::WRONG_EDGE,
            format!("the edge proved the key {presented}, but {expected} is pinned"),
        ),
        AgentError::NotJoined => Failure::new(code, code.title),
        error => Failure::new(code, error),
    }
}
