//! What the commands have in common that are an agent, and those that publish
//! one tunnel until a signal.

use adit_agent::config::AgentConfig;
use adit_agent::{By, Carries, Compression, TunnelSettings};
use adit_model::{Code, TunnelName};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::place::{AgentPlace, Way};
use crate::failure::Failure;
use crate::settings::{self, LogOptions, Options, Remarks};
use crate::{Outcome, agent_seam, given};

/// Options of every command that is an agent: its edge, its files, its log.
#[derive(Debug, clap::Args)]
pub(crate) struct Reach {
    /// Join string of the edge: best by ADIT_EDGE, file:PATH or -
    #[arg(long, value_name = "STRING")]
    edge: Option<String>,
    /// PIN on the edge's terminal: best by ADIT_PIN, file:PATH or -
    #[arg(long, value_name = "PIN")]
    pin: Option<String>,
    #[command(flatten)]
    pub(crate) place: AgentPlace,
    #[command(flatten)]
    way: Way,
    #[command(flatten)]
    pub(crate) log: LogOptions,
}

/// Options of every command that publishes one service.
#[derive(Debug, clap::Args)]
pub(crate) struct Publish {
    /// Refuse to share the name with other agents
    #[arg(long)]
    exclusive: bool,
    /// Compress streams on their way to the edge and back; default: auto for
    /// TCP, else off
    #[arg(long, value_name = "MODE", value_parser = modes())]
    compression: Option<Compression>,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

fn modes() -> impl TypedValueParser<Value = Compression> {
    PossibleValuesParser::new(["off", "auto", "always"]).try_map(|word| word.parse::<Compression>())
}

impl Reach {
    /// Refuses a second option that is to be read from stdin, which has one
    /// first line. `more`: the command's own options that may be.
    ///
    /// # Errors
    /// There are two.
    pub(crate) fn one_stdin(&self, more: &[&Option<String>]) -> Outcome {
        let given = [&self.edge, &self.pin];
        let all = given.iter().chain(more);
        if all.filter(|value| value.as_deref() == Some("-")).count() > 1 {
            let what = "two options are to be read from stdin";
            let remedy = "give all but one by file:PATH or env:NAME";
            return Err(Failure::with(Code::USAGE, what, remedy));
        }
        Ok(())
    }

    /// What is given, as options of the configuration.
    ///
    /// # Errors
    /// A secret cannot be read.
    pub(crate) fn options(&self) -> Result<Options, Failure> {
        let mut options = Options::default();
        self.place.add_to(&mut options);
        self.way.add_to(&mut options)?;
        self.log.add_to(&mut options);
        for (variable, short, option, value) in [
            ("ADIT_AGENT_EDGE", "ADIT_EDGE", "--edge", &self.edge),
            ("ADIT_AGENT_PIN", "ADIT_PIN", "--pin", &self.pin),
        ] {
            let value = given::secret(option, short, value.as_deref())?;
            options.set(variable, option, value.as_ref().map(|value| value.as_str()));
        }
        Ok(options)
    }
}

impl Publish {
    /// As [`Reach::one_stdin`].
    ///
    /// # Errors
    /// There are two.
    pub(crate) fn one_stdin(&self, more: &[&Option<String>]) -> Outcome {
        self.reach.one_stdin(more)
    }

    /// Publishes a service until a signal.
    ///
    /// # Errors
    /// As [`Publish::config`]; why the agent ended by itself.
    pub(crate) fn run(&self, name: Option<&str>, carries: Carries, remarks: &Remarks) -> Outcome {
        let config = self.config(name, carries, remarks)?;
        agent_seam::publish(config, self.reach.log, remarks)
    }

    /// What publishes a service.
    ///
    /// # Errors
    /// The name is none, the environment has mistakes or forbids the target.
    pub(crate) fn config(
        &self,
        name: Option<&str>,
        carries: Carries,
        remarks: &Remarks,
    ) -> Result<AgentConfig, Failure> {
        let name = name.map(TunnelName::parse).transpose();
        let name = name.map_err(|why| Failure::new(Code::BAD_NAME, format!("--name: {why}")))?;
        if let (Some(_), Some(why)) = (self.compression, uncompressed(&carries)) {
            let what = format!("--compression has no meaning here: {why}");
            return Err(Failure::with(Code::USAGE, what, "leave it out"));
        }
        let mut config = settings::agent(None, &self.reach.options()?, remarks)?;
        if !config.agent.allowed_targets.may_lead_to(&carries) {
            let what = format!(
                "the target is {}, which ADIT_AGENT_ALLOWED_TARGETS forbids",
                carries.label()
            );
            let remedy = "add it there, or take another target";
            return Err(Failure::with(Code::CONFIG_CONFLICT, what, remedy));
        }
        config.tunnels = vec![TunnelSettings {
            name,
            carries,
            exclusive: self.exclusive,
            compression: self.compression,
        }];
        Ok(config)
    }
}

/// Why frames of a tunnel are never compressed.
fn uncompressed(carries: &Carries) -> Option<&'static str> {
    match carries {
        Carries::Bytes {
            by: By::Agents(_), ..
        } => Some("agents seal a private tunnel themselves"),
        Carries::Datagrams { .. } => Some("each datagram crosses as it is"),
        _ => None,
    }
}
