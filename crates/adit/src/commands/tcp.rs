//! `adit tcp`: publish one TCP service.

use std::num::NonZeroU16;

use adit_agent::{Carries, Target, TargetError, TcpTarget};
use adit_model::Code;

use super::publish::Publish;
use crate::Outcome;
use crate::failure::Failure;
use crate::settings::{self, Remarks};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit tcp 22 --port 2222                      port 22 of this machine
  adit tcp --target 192.168.1.5:22             on a port that the edge chooses
  adit tcp unix:/run/db.sock --name db

Bytes are carried as they are: what visitors must prove is up to the service.
Without --edge the edge that `adit join` remembered is used. Secrets are read
from ADIT_EDGE and ADIT_PIN first; as options they may be file:PATH, env:NAME or
- (stdin). On a terminal a live view takes the place of the log, unless
--log-level asks for it.")]
pub(crate) struct Args {
    /// Port, host:port or unix:/path
    #[arg(required_unless_present = "named")]
    target: Option<String>,
    /// The same as an option
    #[arg(
        id = "named",
        long = "target",
        value_name = "TARGET",
        conflicts_with = "target"
    )]
    named: Option<String>,
    /// Public port on the edge; default: one that the edge chooses
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Name of the tunnel, a host label; default: random, remembered for the target
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    publish: Publish,
}

pub(crate) fn run(args: &Args) -> Outcome {
    args.publish.one_stdin(&[])?;
    let remarks = Remarks::default();
    if settings::variable("ADIT_AUTH").is_some() {
        remarks.add(
            "ADIT_AUTH is set and protects nothing: a TCP tunnel asks no visitor for a password",
        );
    }
    let given = args.target.as_deref().or(args.named.as_deref());
    let carries = Carries::Tcp {
        target: target(given.unwrap_or_default())?,
        port: args.port.and_then(NonZeroU16::new),
    };
    args.publish.run(args.name.as_deref(), carries, &remarks)
}

fn target(text: &str) -> Result<TcpTarget, Failure> {
    text.parse().map_err(|why| {
        let url = match &why {
            TargetError::NotBytes(_) => text.parse::<Target>().ok(),
            _ => None,
        };
        match url.map(TcpTarget::from) {
            Some(place) => {
                let remedy = format!("write {place}, or publish it with adit http");
                Failure::with(Code::BAD_TARGET, why, remedy)
            }
            None => Failure::new(Code::BAD_TARGET, why),
        }
    })
}
