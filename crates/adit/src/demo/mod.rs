//! `adit demo`: an edge, an agent and a sample site on this machine.
//!
//! The three run in one process and share nothing but sockets: the agent
//! learns the edge from the text of the join string, the edge learns the site
//! from the tunnel that the agent opens, and the check learns the page from
//! the HTTP door. Where the link door cannot be reached, nothing is served.

mod check;
mod fetch;
mod site;

use std::path::Path;
use std::time::Duration;

use adit_agent::{
    AgentEvent, AgentSettings, AllowedTargets, Carriage, Carries, PinFrom, Target, TunnelSettings,
};
use adit_config::LogLevel;
use adit_edge::Facts;
use adit_link::tasks::Tasks;
use adit_model::{Code, TunnelName};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::site::Site;
use crate::failure::Failure;
use crate::settings::{self, LogOptions, Options};
use crate::{Outcome, agent_seam, edge_seam, logging, runtime, terminal};

/// How long the agent may take to its first live tunnel.
const LIVE_WITHIN: Duration = Duration::from_secs(15);
/// How long the site's connections may take to end.
const SITE_END: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit demo              until Ctrl-C; prints the URL to open and what to try next
  adit demo --check      on free ports: fetches its own page and ends
  adit demo --http 127.0.0.1:8081")]
pub(crate) struct Args {
    /// Fetch the page through the whole path, say what was verified, and end
    #[arg(long)]
    check: bool,
    /// Address of the HTTP door; default 127.0.0.1:8080, with --check a free port
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// Address of the link door; default 127.0.0.1:7400, with --check a free port
    #[arg(long, value_name = "ADDRESS")]
    link: Option<String>,
    #[command(flatten)]
    log: LogOptions,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let (format, level) = args.log.or(LogLevel::Error);
    logging::start(format, level, std::io::stderr())?;
    let folder = tempfile::Builder::new().prefix("adit-demo-").tempdir();
    let folder = folder.map_err(|error| {
        let what = format!("no temporary folder: {error}");
        Failure::with(
            Code::DATA_UNREADABLE,
            what,
            "set TMPDIR to a folder that this user may write",
        )
    })?;
    runtime::run(demo(args, folder.path()))
}

async fn demo(args: &Args, folder: &Path) -> Outcome {
    let tasks = Tasks::new();
    let stop = runtime::stop_on_signal()?;
    let shown = terminal::Facts::open()?;
    let site = Site::open(&tasks).await?;
    let edge = edge_seam::start(edge_config(args, folder)?, "").await?;
    let (events, mut told) = mpsc::channel(64);
    let settings = agent_settings(&edge.facts().join.expose(), &site, folder)?;
    let agent_stop = CancellationToken::new();
    let agent = adit_agent::run(settings, events, agent_stop.clone());
    let watched = async {
        let done = tokio::select! {
            () = stop.cancelled() => Ok(()),
            done = present(args, folder, edge.facts(), &site, &shown, &mut told) => done,
        };
        if done.is_ok() && !args.check {
            stop.cancelled().await;
        }
        agent_stop.cancel();
        // The agent's last words, so that it never waits for a listener.
        while told.recv().await.is_some() {}
        done
    };
    let (ended, done) = tokio::join!(agent, watched);
    edge.stop().await;
    tasks.close(SITE_END).await;
    done.and(ended.map_err(agent_seam::failure))
}

/// Waits until the site is live, then shows or checks it.
async fn present(
    args: &Args,
    folder: &Path,
    facts: &Facts,
    site: &Site,
    shown: &terminal::Facts,
    told: &mut mpsc::Receiver<AgentEvent>,
) -> Outcome {
    let url = match timeout(LIVE_WITHIN, live(told)).await {
        Ok(live) => live?,
        Err(_) => return Err(not_live("the agent did not reach the edge in time")),
    };
    if args.check {
        return check::run(facts, site, &url, shown).await;
    }
    shown.print(&welcome(facts, &url, folder));
    // Events are taken so that the agent's newest are kept, and dropped.
    while told.recv().await.is_some() {}
    Ok(())
}

async fn live(told: &mut mpsc::Receiver<AgentEvent>) -> Result<String, Failure> {
    while let Some(event) = told.recv().await {
        match event {
            AgentEvent::Live { url, .. } => return Ok(url),
            AgentEvent::Lost { why, code, .. } => return Err(not_live(&format!("{why} ({code})"))),
            AgentEvent::Refused(refusal) => return Err(not_live(refusal.code().title)),
            AgentEvent::TunnelRefused { text, .. } => return Err(not_live(&text)),
            _ => {}
        }
    }
    Err(not_live("it ended"))
}

fn not_live(why: &str) -> Failure {
    Failure::new(
        Code::CHECK_FAILED,
        format!("the demo's agent got no link to the demo's edge: {why}"),
    )
}

fn edge_config(args: &Args, folder: &Path) -> Result<adit_edge::config::EdgeConfig, Failure> {
    let address = |given: &Option<String>, port: u16| {
        let port = if args.check { 0 } else { port };
        given.clone().unwrap_or_else(|| format!("127.0.0.1:{port}"))
    };
    let mut options = Options::default();
    options.set_path("ADIT_SERVER_DATA", "--data", Some(&folder.join("edge")));
    options.set("ADIT_SERVER_DOMAIN", "--domain", Some("localhost"));
    options.set("ADIT_DOORS_HTTP", "--http", Some(address(&args.http, 8080)));
    options.set("ADIT_DOORS_LINK", "--link", Some(address(&args.link, 7400)));
    options.set("ADIT_DOORS_API", "--api", Some("off"));
    // Whoever can read the terminal has the join string already.
    options.set("ADIT_ADMISSION_PIN", "--pin", Some("off"));
    options.set("ADIT_LOG_ACCESS", "--access", Some("false"));
    options.set("ADIT_SERVER_DRAIN_SECONDS", "--drain", Some("0"));
    settings::edge_alone(&options)
}

fn agent_settings(join: &str, site: &Site, folder: &Path) -> Result<AgentSettings, Failure> {
    let broken = |why: String| Failure::new(Code::CHECK_FAILED, why);
    let join = join
        .parse()
        .map_err(|why: adit_model::JoinError| broken(why.to_string()))?;
    let target: Target = site
        .address()
        .to_string()
        .parse()
        .map_err(|why: adit_agent::TargetError| broken(why.to_string()))?;
    let name = TunnelName::parse("demo").map_err(|why| broken(why.to_string()))?;
    Ok(AgentSettings {
        join: Some(join),
        data: folder.join("agent"),
        forwards: Vec::new(),
        tunnels: vec![TunnelSettings {
            name: Some(name),
            carries: Carries::http(target),
            exclusive: false,
            compression: None,
        }],
        allowed_targets: AllowedTargets::default(),
        carriage: Carriage::default(),
        pin: PinFrom::Nowhere,
        workers: 1,
        drain: Duration::ZERO,
    })
}

fn welcome(facts: &Facts, url: &str, folder: &Path) -> String {
    let program = terminal::program();
    let host = url.trim_start_matches("http://");
    let host = host.split(':').next().unwrap_or(host);
    format!(
        "The demo is live:

  {url}

An edge took your visit at its HTTP door ({http}) and passed it through an
encrypted link (door {link}) to an agent, which asked a sample site that only
it can reach. All three run in this process and share nothing but sockets.

Next, in another terminal:

  curl -i -H 'Host: {host}' http://{http}/

  ADIT_EDGE={join} \\
    {program} http 3000 --data {data}

The second publishes what listens on port 3000 of this machine.
Ctrl-C ends the demo; nothing is kept.",
        data = folder.join("next").display(),
        http = facts.http,
        link = facts.link,
        join = facts.join.expose(),
    )
}
