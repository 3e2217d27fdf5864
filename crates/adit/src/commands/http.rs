//! `adit http`: publish one HTTP service.

use adit_agent::{Carries, Login, TunnelSettings};
use adit_config::{LogLevel, SecretRef};
use adit_model::{Code, TunnelName};
use zeroize::Zeroizing;

use super::place::AgentPlace;
use crate::failure::Failure;
use crate::settings::{self, LogOptions, Options, Remarks};
use crate::view::Screen;
use crate::{Outcome, agent_seam, given, logging, runtime};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit http 3000                               port 3000 of this machine
  adit http 127.0.0.1:3000 --name app          as app.DOMAIN
  adit http https://nas.lan:5001 --insecure-target
  adit http 3000 --auth file:/etc/adit/auth    visitors give user:password

Without --edge the edge that `adit join` remembered is used. Secrets are read
from ADIT_EDGE, ADIT_PIN and ADIT_AUTH first; as options they may be file:PATH,
env:NAME or - (stdin). On a terminal a live view takes the place of the log,
unless --log-level asks for it.")]
pub(crate) struct Args {
    /// Port, host:port, http://…, https://… or unix:/path
    target: String,
    /// First label of the public host name; default: random, remembered for the target
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Join string of the edge: best by ADIT_EDGE, file:PATH or -
    #[arg(long, value_name = "STRING")]
    edge: Option<String>,
    /// Host header that the service is shown instead of the visitor's
    #[arg(long, value_name = "HOST")]
    host_header: Option<String>,
    /// Do not check the certificate of an https:// target
    #[arg(long)]
    insecure_target: bool,
    /// user:password that visitors must give: best by ADIT_AUTH, file:PATH or -
    #[arg(long, value_name = "USER:PASSWORD")]
    auth: Option<String>,
    /// PIN on the edge's terminal: best by ADIT_PIN, file:PATH or -
    #[arg(long, value_name = "PIN")]
    pin: Option<String>,
    /// Refuse to share the name with other agents
    #[arg(long)]
    exclusive: bool,
    #[command(flatten)]
    place: AgentPlace,
    #[command(flatten)]
    log: LogOptions,
}

pub(crate) fn run(args: &Args) -> Outcome {
    one_stdin(args)?;
    let remarks = Remarks::default();
    let tunnel = tunnel(args, &remarks)?;
    let mut options = Options::default();
    args.place.add_to(&mut options);
    args.log.add_to(&mut options);
    let edge = given::secret("--edge", "ADIT_EDGE", args.edge.as_deref())?;
    options.set(
        "ADIT_AGENT_EDGE",
        "--edge",
        edge.as_ref().map(|edge| edge.as_str()),
    );
    let pin = given::secret("--pin", "ADIT_PIN", args.pin.as_deref())?;
    options.set(
        "ADIT_AGENT_PIN",
        "--pin",
        pin.as_ref().map(|pin| pin.as_str()),
    );
    let mut config = settings::agent(None, &options, &remarks)?;
    config.tunnels = vec![tunnel];
    let screen = Screen::new();
    let level = match args.log.log_level {
        None if screen.is_live() => LogLevel::Error,
        _ => config.log.level,
    };
    logging::start(config.log.format, level, screen.log())?;
    settings::warn_unknown_variables();
    remarks.log();
    runtime::run(agent_seam::run(config, screen))
}

/// Stdin has one first line.
fn one_stdin(args: &Args) -> Outcome {
    let given = [&args.edge, &args.auth, &args.pin];
    if given
        .iter()
        .filter(|value| value.as_deref() == Some("-"))
        .count()
        > 1
    {
        let what = "two options are to be read from stdin";
        return Err(Failure::with(
            Code::USAGE,
            what,
            "give all but one by file:PATH or env:NAME",
        ));
    }
    Ok(())
}

fn tunnel(args: &Args, remarks: &Remarks) -> Result<TunnelSettings, Failure> {
    let target: adit_agent::Target = args
        .target
        .parse()
        .map_err(|why| Failure::new(Code::BAD_TARGET, why))?;
    if args.insecure_target && !target.is_tls() {
        let what = "--insecure-target has a meaning for https:// targets only";
        return Err(Failure::with(
            Code::BAD_TARGET,
            what,
            "leave it out, or write https:// before the target",
        ));
    }
    let name = args.name.as_deref().map(TunnelName::parse).transpose();
    let host_header = args.host_header.as_deref().map(str::parse).transpose();
    Ok(TunnelSettings {
        name: name.map_err(|why| Failure::new(Code::BAD_NAME, format!("--name: {why}")))?,
        carries: Carries::Http {
            target,
            insecure_target: args.insecure_target,
            host_header: host_header.map_err(|why| {
                Failure::with(
                    Code::USAGE,
                    format!("--host-header: {why}"),
                    "write it like localhost:3000",
                )
            })?,
            auth: login(args.auth.as_deref(), remarks)?,
        },
        exclusive: args.exclusive,
    })
}

fn login(option: Option<&str>, remarks: &Remarks) -> Result<Option<Login>, Failure> {
    let text = match given::secret("--auth", "ADIT_AUTH", option)? {
        Some(text) => Some(text),
        None => settings::variable("ADIT_AUTH").map(Zeroizing::new),
    };
    let Some(text) = text else { return Ok(None) };
    let unreadable = |why: String| Failure::new(Code::SECRET_UNREADABLE, format!("--auth: {why}"));
    let secret = SecretRef::parse(&text).ok_or_else(|| unreadable("it is empty".to_owned()))?;
    let text = secret
        .reveal(&settings::variable, &|path| remarks.read_secret(path))
        .map_err(unreadable)?;
    let login = Login::parse(&text)
        .map_err(|why| Failure::new(Code::BAD_AUTH, format!("--auth: {why}")))?;
    Ok(Some(login))
}
