//! `adit server`: the edge.

mod announce;

use std::time::Duration;

use adit_edge::Edge;
use adit_edge::lines::LAST_LINES;
use adit_model::Code;
use clap::Subcommand;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::place::EdgePlace;
use super::token;
use crate::settings::{self, LogOptions, Options, Remarks};
use crate::terminal::Facts;
use crate::{Outcome, edge_seam, logging, runtime, terminal};

/// How often a terminal is told of a new PIN at most.
const PIN_LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  adit server                              for this machine only, to try
  adit server --domain example.test        tunnels appear as NAME.example.test
  adit server --config server.toml
  adit server --config server.toml --print-join
  adit server token new                    a join string that admits one agent

Every key of the configuration can be set in the environment: ADIT_SERVER_DOMAIN,
ADIT_DOORS_HTTP, ADIT_LIMITS_REQUESTS_PER_SECOND. SIGTERM and Ctrl-C let open
requests end (drain_seconds) and exit with status 0; a second one ends at once."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Sub>,
    #[command(flatten)]
    place: EdgePlace,
    /// Domain below which tunnels appear as NAME.DOMAIN
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// The domain as visitors reach it, through a TLS proxy say: https://DOMAIN
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Where agents reach the link door from outside
    #[arg(long, value_name = "HOST:PORT")]
    public: Option<String>,
    /// Address of the HTTP door
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// Address of the HTTPS door, or off
    #[arg(long, value_name = "ADDRESS")]
    https: Option<String>,
    /// Address of the link door
    #[arg(long, value_name = "ADDRESS")]
    link: Option<String>,
    /// Address of the API door, or off
    #[arg(long, value_name = "ADDRESS")]
    api: Option<String>,
    /// Print the join string alone and exit; it holds the shared secret
    #[arg(long, conflicts_with = "print_pin")]
    print_join: bool,
    /// Print the running edge's PIN alone and exit
    #[arg(long)]
    print_pin: bool,
    #[command(flatten)]
    log: LogOptions,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// One-time join tokens
    #[command(subcommand)]
    Token(token::Sub),
}

pub(crate) fn run(args: &Args) -> Outcome {
    if let Some(Sub::Token(token)) = &args.command {
        return token::run(token);
    }
    let remarks = Remarks::default();
    let config = settings::edge(args.place.config.as_deref(), &options(args), &remarks)?;
    if args.print_join {
        let new = !config.server.data.exists();
        let desk = edge_seam::desk(&config, true)?;
        let mut join = desk.join().map_err(edge_seam::refused)?;
        // A running edge tells the address that it was started with.
        if let Some(public) = &args.public {
            join.addresses = vec![public.clone()];
        }
        edge_seam::leads_somewhere(&join)?;
        if new {
            let data = config.server.data.display();
            terminal::note(&format!(
                "no edge has used {data} yet: its identity and secret were made now"
            ));
        }
        return Ok(terminal::print_whole(&format!("{}\n", join.expose()))?);
    }
    if args.print_pin {
        let desk = edge_seam::desk(&config, false)?;
        return match desk.pin().map_err(edge_seam::refused)? {
            Some(pin) => Ok(terminal::print_whole(&format!("{}\n", pin.expose()))?),
            None => {
                terminal::note("this edge asks for no PIN (pin = \"off\")");
                Ok(())
            }
        };
    }
    logging::start(config.log.format, config.log.level, std::io::stderr())?;
    settings::warn_unknown_variables();
    remarks.log();
    let about = announce::About::of(&config, &args.place);
    runtime::run(async move {
        let stop = runtime::stop_on_signal()?;
        let facts = Facts::open()?;
        let edge = edge_seam::start(config, " (or in [doors] of its file)").await?;
        let person = terminal::is_person();
        if person {
            facts.print(&announce::for_people(edge.facts(), &about));
        } else {
            facts.print(&announce::for_scripts(edge.facts()));
            announce::into_log(edge.facts(), &about);
        }
        // The last line, so that who waits for it has all the others.
        logging::flush(LAST_LINES);
        facts.print("ready");
        watch(&edge, &stop, person.then_some(&facts)).await;
        tracing::info!(target: "adit", "stopping: open requests may end");
        if !edge.stop().await {
            tracing::warn!(target: "adit", code = %Code::DRAIN_CUT, "streams were cut at the end of the drain");
        }
        Ok(())
    })
}

fn options(args: &Args) -> Options {
    let mut options = Options::default();
    options.set_path("ADIT_SERVER_DATA", "--data", args.place.data.as_deref());
    options.set("ADIT_SERVER_DOMAIN", "--domain", args.domain.as_deref());
    options.set("ADIT_SERVER_URL", "--url", args.url.as_deref());
    options.set("ADIT_SERVER_PUBLIC", "--public", args.public.as_deref());
    options.set("ADIT_DOORS_HTTP", "--http", args.http.as_deref());
    options.set("ADIT_DOORS_HTTPS", "--https", args.https.as_deref());
    options.set("ADIT_DOORS_LINK", "--link", args.link.as_deref());
    options.set("ADIT_DOORS_API", "--api", args.api.as_deref());
    args.log.add_to(&mut options);
    options
}

/// Waits for the signal; a terminal meanwhile sees each new PIN.
async fn watch(edge: &Edge, stop: &CancellationToken, person: Option<&Facts>) {
    let mut shown = edge.facts().pin.clone();
    let mut look = interval(PIN_LOOK);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = look.tick(), if person.is_some() => {
                let pin = edge.pin();
                if pin != shown
                    && let (Some(pin), Some(person)) = (&pin, person)
                {
                    person.add(&format!("  PIN now      {}", pin.expose()));
                }
                shown = pin;
            }
        }
    }
}
