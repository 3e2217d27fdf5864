//! `adit join`: this machine becomes an agent of an edge.

use adit_model::Code;
use zeroize::Zeroizing;

use super::place::{AgentPlace, Way};
use crate::failure::Failure;
use crate::settings::{self, LogOptions, Options, Remarks};
use crate::view::Screen;
use crate::{Outcome, agent_seam, ask, given, logging, runtime, terminal};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit join                           asks for the string and the PIN
  adit join adit1…                    as the edge prints it
  adit join -                         reads the string from stdin
  adit join file:/run/secrets/join

Without an argument the string is taken from ADIT_EDGE, else asked for at the
terminal, where ps does not show it. The edge is met once and remembered; afterwards `adit http 3000` needs nothing else.")]
pub(crate) struct Args {
    /// The join string, - for stdin, file:PATH or env:NAME
    #[arg(value_name = "STRING")]
    join: Option<String>,
    /// The PIN on the edge's terminal: best by ADIT_PIN, file:PATH or -
    #[arg(long, value_name = "PIN")]
    pin: Option<String>,
    #[command(flatten)]
    place: AgentPlace,
    #[command(flatten)]
    way: Way,
    #[command(flatten)]
    log: LogOptions,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut options = Options::default();
    args.place.add_to(&mut options);
    args.way.add_to(&mut options)?;
    args.log.add_to(&mut options);
    let join = string(args.join.as_deref())?;
    options.set(
        "ADIT_AGENT_EDGE",
        "STRING",
        join.as_ref().map(|join| join.as_str()),
    );
    let pin = given::secret("--pin", "ADIT_PIN", args.pin.as_deref())?;
    options.set(
        "ADIT_AGENT_PIN",
        "--pin",
        pin.as_ref().map(|pin| pin.as_str()),
    );
    let remarks = Remarks::default();
    let agent = settings::agent(None, &options, &remarks)?.agent;
    let Some(join) = agent.edge else {
        let remedy = "give the string that the edge prints: adit join adit1…, or set ADIT_EDGE";
        return Err(Failure::with(
            Code::JOIN_ABSENT,
            "there is no join string",
            remedy,
        ));
    };
    let (format, level) = args.log.or(adit_config::LogLevel::Warn);
    logging::start(format, level, std::io::stderr())?;
    remarks.log();
    let screen = Screen::new();
    let address = join.addresses.join(", ");
    let pin = ask::pin(agent.pin, &screen);
    let carriage = agent_seam::carriage(agent.carrier, agent.proxy);
    let edge = runtime::run(agent_seam::join(join, agent.data, pin, carriage))?;
    terminal::print(&format!("joined {edge} {address}"));
    if terminal::is_person() {
        terminal::print("now publish something: adit http 3000");
    }
    Ok(())
}

/// The join string as it was given; `None`: the environment may have it.
fn string(given: Option<&str>) -> Result<Option<Zeroizing<String>>, Failure> {
    if given.is_some() {
        return given::secret("STRING", "ADIT_EDGE", given);
    }
    if settings::variable("ADIT_AGENT_EDGE").is_some() || !terminal::can_ask() {
        return Ok(None);
    }
    terminal::ask("Join string (adit1…, from the edge's terminal): ");
    given::secret("STRING", "ADIT_EDGE", Some("-")).map_err(|_| {
        let remedy = "print it on the edge: adit server --print-join";
        Failure::with(Code::JOIN_ABSENT, "no join string was typed", remedy)
    })
}
