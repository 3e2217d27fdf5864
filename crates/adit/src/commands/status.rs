//! `adit status`: what an edge and the agents of this machine do.

use std::path::{Path, PathBuf};

use adit_agent::Agents;
use adit_edge::control::Report;
use adit_model::Code;
use serde_json::{Value, json};

use super::config::{Side, guess};
use super::place::{AgentPlace, EdgePlace, state};
use crate::failure::Failure;
use crate::report::{self, Look};
use crate::settings;
use crate::{Outcome, edge_seam, terminal};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit status
  adit status --config server.toml
  adit status --config client.toml
  adit status --json

An edge that runs here is shown, and each agent. IN is from visitors, OUT to
them, in thousands (1 kB = 1000 bytes). An edge's numbers begin with the edge,
and a tunnel's are kept there while its agent is away. An agent's begin with the
agent; it counts streams, which carry several requests of HTTP. On a terminal long
lines are cut; into a pipe they are whole. The JSON object is described in
docs/status.md.")]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// The configuration file of the edge or the agent
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder of the edge or the agent
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let found = look(args)?;
    if args.json {
        return Ok(terminal::print_json(&found.json()?)?);
    }
    let person = terminal::is_person();
    let look = Look {
        width: if person {
            terminal::width()
        } else {
            usize::MAX
        },
        bold: terminal::out_has_colour(),
    };
    let lines = found.lines(look)?;
    Ok(terminal::print_whole(&format!("{}\n", lines.join("\n")))?)
}

/// What runs here.
struct Found {
    edge: Option<Value>,
    /// `None`: not looked for.
    agents: Option<Here>,
}

/// The agents of a data folder.
struct Here {
    data: PathBuf,
    agents: Agents,
}

/// A file says whose it is; without one both are looked for.
fn look(args: &Args) -> Result<Found, Failure> {
    let file = args.config.clone().or_else(settings::configured);
    let file = file.as_deref();
    match file.map(guess).transpose()? {
        Some(Side::Server) => Ok(Found {
            edge: Some(edge(args, file)?),
            agents: None,
        }),
        Some(Side::Client) => Ok(Found {
            edge: None,
            agents: Some(agents(args, file)?.some(None)?),
        }),
        None => both(edge(args, None), agents(args, None)),
    }
}

/// Who is there is shown, and who cannot be asked is told beside.
fn both(edge: Result<Value, Failure>, agents: Result<Here, Failure>) -> Result<Found, Failure> {
    let is_absent = |failure: &Failure| failure.code() == Code::NO_EDGE_RUNNING;
    let (edge, agents) = match (edge, agents) {
        (Ok(edge), agents) => (Some(edge), agents.map_err(|why| why.note()).ok()),
        (Err(no_edge), Ok(here)) if is_absent(&no_edge) => (None, Some(here.some(Some(&no_edge))?)),
        (Err(no_edge), Ok(here)) if !here.agents.running.is_empty() => {
            no_edge.note();
            (None, Some(here))
        }
        (Err(no_edge), _) => return Err(no_edge),
    };
    Ok(Found { edge, agents })
}

fn edge(args: &Args, file: Option<&Path>) -> Result<Value, Failure> {
    let place = EdgePlace {
        config: file.map(Path::to_owned),
        data: args.data.clone(),
    };
    place.desk(false)?.status().map_err(edge_seam::refused)
}

fn agents(args: &Args, file: Option<&Path>) -> Result<Here, Failure> {
    let place = AgentPlace {
        data: args.data.clone(),
    };
    let data = place.path(file)?;
    let agents = adit_agent::agents(&data).map_err(state)?;
    Ok(Here { data, agents })
}

impl Here {
    /// That some agent runs; `no_edge`: what was said of the edge.
    ///
    /// # Errors
    /// None does.
    fn some(self, no_edge: Option<&Failure>) -> Result<Self, Failure> {
        if !self.agents.running.is_empty() {
            return Ok(self);
        }
        if let Some(silent) = self.silent().next() {
            let remedy = "see whether the agent was stopped (fg, or kill -CONT), or start it again";
            return Err(Failure::with(Code::DATA_IN_USE, silent, remedy));
        }
        let data = self.data.display();
        Err(match (self.dead(), no_edge) {
            (Some(dead), _) => Failure::new(Code::NO_AGENT_RUNNING, dead),
            (None, None) => {
                let what = format!("no agent runs on the data folder {data}");
                Failure::new(Code::NO_AGENT_RUNNING, what)
            }
            (None, Some(no_edge)) => {
                let what = format!("{no_edge}; and no agent runs on the data folder {data}");
                let remedy = "start an edge (adit server) or an agent (adit client, adit http), \
                              or name the folder of one that runs by --config or --data";
                Failure::with(no_edge.code(), what, remedy)
            }
        })
    }

    /// What is to be said of agents that do not answer.
    fn silent(&self) -> impl Iterator<Item = String> {
        let silent = self.agents.silent.iter();
        silent.map(|(path, why)| format!("an agent does not answer at {}: {why}", path.display()))
    }

    /// What is to be said of agents that left their socket behind.
    fn dead(&self) -> Option<String> {
        let data = self.data.display();
        match self.agents.dead {
            0 => None,
            1 => Some(format!(
                "an agent on {data} is not running any more: it was killed or has crashed"
            )),
            many => Some(format!(
                "{many} agents on {data} are not running any more: they were killed or have crashed"
            )),
        }
    }
}

impl Found {
    fn json(&self) -> Result<Value, Failure> {
        let mut all = self.edge.clone().unwrap_or_else(|| json!({}));
        if let Some(here) = &self.agents {
            let running = serde_json::to_value(&here.agents.running);
            all["local_agents"] =
                running.map_err(|error| Failure::new(Code::OUTPUT_CLOSED, error))?;
            for line in here.silent().chain(here.dead()) {
                terminal::note(&terminal::plain(&line));
            }
        }
        Ok(all)
    }

    fn lines(&self, look: Look) -> Result<Vec<String>, Failure> {
        let mut blocks = Vec::new();
        if let Some(edge) = &self.edge {
            let report: Report = serde_json::from_value(edge.clone()).map_err(|_| {
                let what = "the edge's answer is not understood: is it of another version?";
                Failure::new(Code::DATA_IN_USE, what)
            })?;
            blocks.push(report::status(&report, look));
        }
        if let Some(here) = &self.agents {
            let running = here.agents.running.iter();
            blocks.extend(running.map(|agent| report::agent(agent, look)));
            let others = here.silent().chain(here.dead());
            blocks.extend(others.map(|line| look.whole(&line)));
        }
        Ok(blocks.join(&String::new()))
    }
}
