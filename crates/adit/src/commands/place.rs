//! Which edge or agent a command of administration means.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use adit_agent::DataFolder;
use adit_edge::control::client::Client;

use crate::failure::Failure;
use crate::settings::{self, Options, Remarks};
use crate::{edge_seam, given};

/// Names an edge by its configuration or its data folder.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct EdgePlace {
    /// The edge's configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The edge's data folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
}

impl EdgePlace {
    /// The owner's desk: the running edge, else its files.
    ///
    /// # Errors
    /// Mistakes in the configuration; neither can be reached.
    pub(crate) fn desk(&self, may_create: bool) -> Result<Client, Failure> {
        let mut options = Options::default();
        options.set_path("ADIT_SERVER_DATA", "--data", self.data.as_deref());
        let config = settings::edge(self.config.as_deref(), &options, &Remarks::default())?;
        edge_seam::desk(&config, may_create)
    }
}

/// Names an agent by its data folder.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct AgentPlace {
    /// The agent's data folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
}

impl AgentPlace {
    /// As options of the configuration.
    pub(crate) fn add_to(&self, options: &mut Options) {
        options.set_path("ADIT_AGENT_DATA", "--data", self.data.as_deref());
    }

    /// The folder's path.
    ///
    /// # Errors
    /// Mistakes in the environment or the file.
    pub(crate) fn path(&self, file: Option<&Path>) -> Result<PathBuf, Failure> {
        let mut options = Options::default();
        self.add_to(&mut options);
        Ok(settings::agent(file, &options, &Remarks::default())?
            .agent
            .data)
    }

    /// The folder, made when absent.
    ///
    /// # Errors
    /// It cannot be used.
    pub(crate) fn folder(&self) -> Result<DataFolder, Failure> {
        DataFolder::open(&self.path(None)?).map_err(state)
    }
}

/// One address, as an argument.
///
/// # Errors
/// It is none; in words.
pub(crate) fn address(text: &str) -> Result<IpAddr, &'static str> {
    let is_network = text
        .split_once('/')
        .is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok());
    match text.parse() {
        Ok(address) => Ok(address),
        Err(_) if is_network => Err("a network; it wants one address, like 192.0.2.7"),
        Err(_) => Err("an address is written like 192.0.2.7 or 2001:db8::7"),
    }
}

/// How a command that dials reaches the edge.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Way {
    /// What the link travels in: auto, tcp, quic or websocket
    #[arg(long, value_name = "CARRIER")]
    carrier: Option<String>,
    /// The way out of this network: http://HOST:PORT or socks5://HOST:PORT
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
}

impl Way {
    /// As options of the configuration.
    ///
    /// # Errors
    /// The proxy cannot be read from where it is said to be.
    pub(crate) fn add_to(&self, options: &mut Options) -> Result<(), Failure> {
        options.set("ADIT_AGENT_CARRIER", "--carrier", self.carrier.as_deref());
        let (option, variable) = ("--proxy", "ADIT_AGENT_PROXY");
        // A proxy that wants no login is no secret.
        let open = |url: &str| url.contains("://") && !url.contains('@');
        if self.proxy.as_deref().is_some_and(open) {
            options.set(variable, option, self.proxy.as_deref());
            return Ok(());
        }
        let proxy = given::secret(option, variable, self.proxy.as_deref())?;
        options.set(variable, option, proxy.as_ref().map(|proxy| proxy.as_str()));
        Ok(())
    }
}

/// An error of an agent's files as a failure of a command.
pub(crate) fn state(error: adit_agent::StateError) -> Failure {
    Failure::new(error.code(), error)
}
