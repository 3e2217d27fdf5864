//! `adit client`: publish the tunnels of a configuration file.

use std::path::PathBuf;

use adit_model::Code;

use super::place::AgentPlace;
use crate::failure::Failure;
use crate::settings::{self, LogOptions, Options, Remarks};
use crate::{Outcome, agent_seam, given};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit client --config client.toml
  adit config example client               a complete file to begin with

On a terminal a live view takes the place of the log, unless --log-level asks
for it; piped, stdout has a line `live NAME URL TARGET` for each tunnel. SIGTERM
and Ctrl-C let open streams end (drain_seconds) and exit with status 0.")]
pub(crate) struct Args {
    /// The configuration file; default: the one that ADIT_CONFIG names
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// PIN on the edge's terminal: best by ADIT_PIN, file:PATH or -
    #[arg(long, value_name = "PIN")]
    pin: Option<String>,
    #[command(flatten)]
    place: AgentPlace,
    #[command(flatten)]
    log: LogOptions,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let Some(file) = args.config.clone().or_else(settings::configured) else {
        let remedy =
            "name one: adit client --config client.toml; `adit config example client` prints one";
        return Err(Failure::with(
            Code::USAGE,
            "there is no configuration file",
            remedy,
        ));
    };
    let mut options = Options::default();
    args.place.add_to(&mut options);
    args.log.add_to(&mut options);
    let pin = given::secret("--pin", "ADIT_PIN", args.pin.as_deref())?;
    options.set(
        "ADIT_AGENT_PIN",
        "--pin",
        pin.as_ref().map(|pin| pin.as_str()),
    );
    let remarks = Remarks::default();
    let config = settings::agent(Some(&file), &options, &remarks)?;
    if config.tunnels.is_empty() && config.forwards.is_empty() {
        let what = format!(
            "{}: there is no [[tunnel]] and no [[forward]]",
            file.display()
        );
        return Err(Failure::with(
            Code::CONFIG_MISSING,
            what,
            "add one: [[tunnel]] with target = \"3000\"",
        ));
    }
    agent_seam::publish(config, args.log, &remarks)
}
