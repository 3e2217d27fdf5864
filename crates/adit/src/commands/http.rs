//! `adit http`: publish one HTTP service.

use adit_agent::{Carries, Login, Target};
use adit_config::SecretRef;
use adit_model::Code;
use zeroize::Zeroizing;

use super::publish::Publish;
use crate::failure::Failure;
use crate::settings::{self, Remarks};
use crate::{Outcome, given};

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
    /// Host header that the service is shown instead of the visitor's
    #[arg(long, value_name = "HOST")]
    host_header: Option<String>,
    /// Do not check the certificate of an https:// target
    #[arg(long)]
    insecure_target: bool,
    /// user:password that visitors must give: best by ADIT_AUTH, file:PATH or -
    #[arg(long, value_name = "USER:PASSWORD")]
    auth: Option<String>,
    #[command(flatten)]
    publish: Publish,
}

pub(crate) fn run(args: &Args) -> Outcome {
    args.publish.one_stdin(&[&args.auth])?;
    let remarks = Remarks::default();
    let carries = carries(args, &remarks)?;
    args.publish.run(args.name.as_deref(), carries, &remarks)
}

fn carries(args: &Args, remarks: &Remarks) -> Result<Carries, Failure> {
    let target: Target = args
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
    let host_header = args.host_header.as_deref().map(str::parse).transpose();
    Ok(Carries::Http {
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
