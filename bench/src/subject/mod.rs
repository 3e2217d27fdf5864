//! The subjects: each is started for its turn, and ended after it.

pub(crate) mod adit;
mod bore;
mod haproxy;
mod rathole;
mod ssh;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::command::{Command, Name};
use crate::datagrams;
use crate::error::BenchError;
use crate::far::Sides;
use crate::http::{Door, keepalive};
use crate::locate;
use crate::process::{Running, Table, resident};
use crate::workshop::{Workshop, free};

/// The host name by which Adit knows the service; the others ignore it.
const HOST: &str = "app.localhost";

/// The programs that a run needs.
#[derive(Debug)]
pub(crate) struct Programs {
    found: HashMap<&'static str, PathBuf>,
    sides: Sides,
}

impl Programs {
    /// None yet.
    pub(crate) fn new(sides: Sides) -> Self {
        Self {
            found: HashMap::new(),
            sides,
        }
    }

    /// An address for a link door that was free a moment ago.
    fn link(&self) -> Result<SocketAddr, BenchError> {
        let port = free()?.port();
        Ok(SocketAddr::new(self.sides.edge, port))
    }

    /// Starts a program on the agent's side.
    fn agent<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        arguments: &[A],
        dir: &Path,
        name: &str,
    ) -> Result<Running, BenchError> {
        Running::start_by(&self.sides.words, program, arguments, dir, name)
    }

    /// Finds or installs what `name` needs.
    pub(crate) async fn need(&mut self, name: Name, command: &Command) -> Result<(), BenchError> {
        let install = !command.no_install;
        match name {
            Name::Direct => {}
            Name::Adit | Name::AditDefault | Name::AditTcp | Name::AditTcpOff => {
                if !self.found.contains_key("adit") {
                    self.found
                        .insert("adit", locate::adit(command.adit.as_deref()).await?);
                }
            }
            Name::Rathole | Name::RatholeNoise => {
                let found = locate::peer("rathole", &rathole::INSTALL, install).await?;
                self.found.insert("rathole", found);
            }
            Name::Bore => {
                let found = locate::peer("bore", &bore::INSTALL, install).await?;
                self.found.insert("bore", found);
            }
            Name::Hop => {
                let found = locate::system("haproxy", "haproxy")?;
                self.found.insert("haproxy", found);
            }
            Name::Ssh => {
                for (program, package) in ssh::PROGRAMS {
                    self.found
                        .insert(program, locate::system(program, package)?);
                }
            }
        }
        Ok(())
    }

    fn get(&self, program: &'static str) -> Result<&Path, BenchError> {
        self.found
            .get(program)
            .map(PathBuf::as_path)
            .ok_or_else(|| BenchError::Missing {
                program,
                how: "it was not looked for".into(),
            })
    }
}

/// A subject that carries requests.
#[derive(Debug)]
pub(crate) struct Subject {
    /// In the order in which they are ended: the agent's side first.
    processes: Vec<Running>,
    /// Where its visitors go.
    pub(crate) door: Door,
}

impl Subject {
    /// Starts it and waits until a request passes.
    pub(crate) async fn start(
        name: Name,
        programs: &Programs,
        workshop: &Workshop,
        origin: SocketAddr,
    ) -> Result<Self, BenchError> {
        let dir = workshop.folder(&name.to_string())?;
        let (mut processes, address) = match name {
            Name::Direct => (Vec::new(), origin),
            Name::Adit => adit::start(programs, &dir, origin, adit::Settings::Free).await?,
            Name::AditDefault => {
                adit::start(programs, &dir, origin, adit::Settings::Default).await?
            }
            Name::AditTcp => adit::start_tcp(programs, &dir, origin, "auto").await?,
            Name::AditTcpOff => adit::start_tcp(programs, &dir, origin, "off").await?,
            Name::Rathole => {
                rathole::start(programs, &dir, origin, rathole::Transport::Plain, "tcp").await?
            }
            Name::RatholeNoise => {
                rathole::start(programs, &dir, origin, rathole::Transport::Noise, "tcp").await?
            }
            Name::Bore => bore::start(programs, &dir, origin).await?,
            Name::Hop => haproxy::start(programs, &dir, origin).await?,
            Name::Ssh => ssh::start(programs, &dir, origin).await?,
        };
        let door = Door {
            address,
            host: HOST.to_owned(),
        };
        if let Some(process) = processes.first_mut() {
            process
                .until("a request through the tunnel", async || {
                    let seen = keepalive(&door, 1, std::time::Duration::from_millis(20)).await;
                    seen.answers > 0 && seen.errors == 0
                })
                .await?;
        }
        Ok(Self { processes, door })
    }

    /// Starts it for datagrams and waits until one passes; `None` for a subject
    /// that carries none.
    pub(crate) async fn start_udp(
        name: Name,
        programs: &Programs,
        workshop: &Workshop,
        origin: SocketAddr,
    ) -> Result<Option<Self>, BenchError> {
        let dir = workshop.folder(&format!("{name}-udp"))?;
        let rathole =
            async |transport| rathole::start(programs, &dir, origin, transport, "udp").await;
        let (mut processes, address) = match name {
            Name::Direct => (Vec::new(), origin),
            Name::Adit => adit::start_udp(programs, &dir, origin).await?,
            Name::Rathole => rathole(rathole::Transport::Plain).await?,
            Name::RatholeNoise => rathole(rathole::Transport::Noise).await?,
            _ => return Ok(None),
        };
        let door = Door {
            address,
            host: HOST.to_owned(),
        };
        if let Some(process) = processes.first_mut() {
            let passes = async || datagrams::passes(address).await;
            process
                .until("a datagram through the tunnel", passes)
                .await?;
        }
        Ok(Some(Self { processes, door }))
    }

    fn ids(&self) -> Vec<u32> {
        self.processes.iter().filter_map(Running::id).collect()
    }

    /// CPU seconds of its processes so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let ids = self.ids();
        if ids.is_empty() {
            0.0
        } else {
            Table::read().cpu_seconds(&ids)
        }
    }

    /// Resident memory of its processes together, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        Table::read()
            .family(&self.ids())
            .into_iter()
            .filter_map(resident)
            .sum()
    }

    /// Ends it.
    pub(crate) async fn stop(self) {
        for process in self.processes {
            process.stop().await;
        }
    }
}
