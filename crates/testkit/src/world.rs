//! An edge and agents in one process, on ports that nobody else has.
//!
//! A [`World`] is blocking: its edge and agents run on a runtime of their own
//! while the test calls curl, looks at counters and waits for conditions.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_agent::{
    AgentError, AgentEvent, AgentSettings, AllowedTargets, Carriage, Carries, PinFrom,
    TunnelSettings,
};
use adit_config::{Input, Paint};
use adit_edge::config::EdgeConfig;
use adit_edge::serve::{Edge, Facts};
use adit_model::{JoinString, TunnelName};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::wait::until;

/// An edge, the folder of its data, and the runtime that both sides run on.
pub struct World {
    runtime: Arc<Runtime>,
    edge: Option<Edge>,
    facts: Facts,
    config: String,
    /// More keys of `[doors]`.
    doors: String,
    folder: tempfile::TempDir,
}

impl World {
    /// An edge with default settings under the domain `test`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn new() -> Self {
        Self::with("")
    }

    /// An edge with more tables of configuration. `[server]` and `[doors]` are
    /// given already; keys of theirs go in front of the first table.
    ///
    /// # Panics
    /// When the configuration is wrong or the edge does not start.
    #[must_use]
    pub fn with(tables: &str) -> Self {
        Self::with_doors("", tables)
    }

    /// As [`World::with`], with more keys of `[doors]`.
    ///
    /// # Panics
    /// When the configuration is wrong or the edge does not start.
    #[must_use]
    pub fn with_doors(doors: &str, tables: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("edge");
        let (keys, tables) = tables.split_at(tables.find('[').unwrap_or(tables.len()));
        // An access log of a test's own requests tells its reader nothing.
        let log = if tables.contains("[log]") {
            ""
        } else {
            "[log]\naccess = false\n"
        };
        let config = format!(
            "[server]\ndomain = \"test\"\ndata = \"{}\"\nworkers = 2\n{keys}\n{tables}\n{log}",
            data.display()
        );
        let any = "[doors]\nhttp = \"127.0.0.1:0\"\nlink = \"127.0.0.1:0\"\nquic = \"off\"\napi = \"127.0.0.1:0\"\n";
        let edge = start(&runtime, &format!("{config}{any}{doors}"));
        Self {
            runtime: Arc::new(runtime),
            facts: edge.facts().clone(),
            edge: Some(edge),
            config,
            doors: doors.to_owned(),
            folder,
        }
    }

    /// Where visitors knock.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.facts.http
    }

    /// Where visitors knock who speak TLS.
    ///
    /// # Panics
    /// When the door is switched off.
    #[must_use]
    pub fn https(&self) -> SocketAddr {
        self.facts.https.expect("an HTTPS door")
    }

    /// Where agents knock.
    #[must_use]
    pub fn link(&self) -> SocketAddr {
        self.facts.link
    }

    /// Where metrics are.
    ///
    /// # Panics
    /// When the door is switched off.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        self.facts.api.expect("an API door")
    }

    /// What the edge said about itself when it started.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The running edge.
    ///
    /// # Panics
    /// When it was stopped.
    #[must_use]
    pub fn edge(&self) -> &Edge {
        self.edge.as_ref().expect("a running edge")
    }

    /// The join string, with another address than the link door's own.
    #[must_use]
    pub fn join_by(&self, address: SocketAddr) -> JoinString {
        JoinString {
            addresses: vec![address.to_string()],
            doors: Vec::new(),
            ..self.facts.join.clone()
        }
    }

    /// A folder of this world that is empty at first.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Stops the edge in order; false when streams had to be cut.
    ///
    /// # Panics
    /// When it was stopped before.
    pub fn stop_edge(&mut self) -> bool {
        let edge = self.edge.take().expect("a running edge");
        self.runtime.block_on(edge.stop())
    }

    /// Starts the edge again on the same data and the same ports.
    ///
    /// # Panics
    /// When it still runs, or does not start.
    pub fn start_edge(&mut self) {
        assert!(self.edge.is_none(), "the edge runs already");
        let doors = format!(
            "[doors]\nhttp = \"{}\"\nlink = \"{}\"\nquic = \"off\"\napi = \"{}\"\n{}",
            self.http(),
            self.link(),
            self.api(),
            self.doors
        );
        let edge = start(&self.runtime, &format!("{}{doors}", self.config));
        self.facts = edge.facts().clone();
        self.edge = Some(edge);
    }

    /// An agent with one tunnel, live.
    ///
    /// # Panics
    /// When the tunnel does not become live.
    #[must_use]
    pub fn agent(&self, name: &str, target: SocketAddr) -> Agent {
        let agent = self.start_agent(AgentPlan::new(self, name, target));
        agent.wait_live(name);
        agent
    }

    /// An agent as planned, not waited for.
    ///
    /// # Panics
    /// When the plan names what is no name or target.
    #[must_use]
    pub fn start_agent(&self, plan: AgentPlan) -> Agent {
        Agent::start(&self.runtime, plan)
    }

    /// A value of a metric, by its name and labels as `/metrics` writes them.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        let reply = crate::curl::get(self.api(), &format!("http://{}/metrics", self.api()));
        crate::counters::metric(&reply.body, name)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(edge) = self.edge.take().filter(|_| !std::thread::panicking()) {
            self.runtime.block_on(edge.stop());
        }
    }
}

fn start(runtime: &Runtime, text: &str) -> Edge {
    let input = Input {
        text,
        file: Some(Path::new("server.toml")),
        variable: &|_| None,
        read: &|path| std::fs::read_to_string(path).map_err(|e| e.to_string()),
        options: &[],
    };
    let config = EdgeConfig::parse(input).unwrap_or_else(|m| panic!("{}", m.render(Paint::Plain)));
    let started = runtime.block_on(Edge::start(config));
    started.unwrap_or_else(|e| panic!("the edge does not start: {e}"))
}

/// What an agent shall do.
pub struct AgentPlan {
    /// Its settings.
    pub settings: AgentSettings,
}

impl AgentPlan {
    /// One tunnel, admitted by the join string and the PIN, with a data folder
    /// of its own.
    ///
    /// # Panics
    /// When the name is none.
    #[must_use]
    pub fn new(world: &World, name: &str, target: SocketAddr) -> Self {
        let data = tempfile::tempdir_in(world.folder.path()).expect("a temporary folder");
        let settings = AgentSettings {
            join: Some(world.facts.join.clone()),
            data: data.keep(),
            forwards: Vec::new(),
            tunnels: vec![tunnel(name, &target.to_string())],
            allowed_targets: AllowedTargets::default(),
            carriage: Carriage::default(),
            pin: world.edge().pin().map_or(PinFrom::Nowhere, PinFrom::Fixed),
            workers: 0,
            drain: Duration::from_secs(5),
        };
        Self { settings }
    }

    /// As [`AgentPlan::new`], of a TCP tunnel.
    ///
    /// # Panics
    /// When the name is none.
    #[must_use]
    pub fn tcp(world: &World, name: &str, target: SocketAddr, port: Option<u16>) -> Self {
        let mut plan = Self::new(world, name, target);
        plan.settings.tunnels = vec![tcp_tunnel(name, target, port)];
        plan
    }

    /// As [`AgentPlan::new`], of a UDP tunnel.
    ///
    /// # Panics
    /// When the name is none.
    #[must_use]
    pub fn udp(world: &World, name: &str, target: SocketAddr, port: Option<u16>) -> Self {
        let mut plan = Self::new(world, name, target);
        plan.settings.tunnels = vec![udp_tunnel(name, target, port)];
        plan
    }

    /// Dials another address than the link door's own.
    #[must_use]
    pub fn by(mut self, world: &World, address: SocketAddr) -> Self {
        self.settings.join = Some(world.join_by(address));
        self
    }
}

/// The settings of a plain tunnel.
///
/// # Panics
/// When name or target is none.
#[must_use]
pub fn tunnel(name: &str, target: &str) -> TunnelSettings {
    TunnelSettings {
        name: Some(TunnelName::parse(name).expect("a tunnel's name")),
        carries: Carries::http(target.parse().expect("a target")),
        exclusive: false,
        compression: None,
    }
}

/// The settings of a TCP tunnel that asks for a port, or for any.
///
/// # Panics
/// When name or target is none.
#[must_use]
pub fn tcp_tunnel(name: &str, target: SocketAddr, port: Option<u16>) -> TunnelSettings {
    TunnelSettings {
        name: Some(TunnelName::parse(name).expect("a tunnel's name")),
        carries: Carries::tcp(
            target.to_string().parse().expect("a target"),
            port.and_then(NonZeroU16::new),
        ),
        exclusive: false,
        compression: None,
    }
}

/// The settings of a UDP tunnel that asks for a port, or for any.
///
/// # Panics
/// When name or target is none.
#[must_use]
pub fn udp_tunnel(name: &str, target: SocketAddr, port: Option<u16>) -> TunnelSettings {
    TunnelSettings {
        name: Some(TunnelName::parse(name).expect("a tunnel's name")),
        carries: Carries::Datagrams {
            target: target.to_string().parse().expect("a target"),
            port: port.and_then(NonZeroU16::new),
        },
        exclusive: false,
        compression: None,
    }
}

/// A running agent; stopped when dropped.
pub struct Agent {
    runtime: Arc<Runtime>,
    stop: CancellationToken,
    events: Arc<Mutex<Vec<AgentEvent>>>,
    task: Option<tokio::task::JoinHandle<Result<(), AgentError>>>,
    /// Its data folder.
    pub data: PathBuf,
}

impl Agent {
    fn start(runtime: &Arc<Runtime>, plan: AgentPlan) -> Self {
        let (sender, mut receiver) = mpsc::channel(1024);
        let stop = CancellationToken::new();
        let events = Arc::new(Mutex::new(Vec::new()));
        let data = plan.settings.data.clone();
        let told = Arc::clone(&events);
        let running = adit_agent::run(plan.settings, sender, stop.clone());
        let listening = async move {
            while let Some(event) = receiver.recv().await {
                told.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(event);
            }
        };
        let task = runtime
            .handle()
            .spawn(async move { tokio::join!(running, listening).0 });
        Self {
            runtime: Arc::clone(runtime),
            stop,
            events,
            task: Some(task),
            data,
        }
    }

    /// Everything it told so far.
    #[must_use]
    pub fn events(&self) -> Vec<AgentEvent> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for an event; those already told count.
    ///
    /// # Panics
    /// When it does not come: what came is shown.
    pub fn wait<T>(&self, what: &str, mut pick: impl FnMut(&AgentEvent) -> Option<T>) -> T {
        self.wait_from(0, what, &mut pick)
    }

    /// As [`Agent::wait`], without the first `from` events.
    ///
    /// # Panics
    /// As [`Agent::wait`].
    pub fn wait_from<T>(
        &self,
        from: usize,
        what: &str,
        mut pick: impl FnMut(&AgentEvent) -> Option<T>,
    ) -> T {
        let shown = || format!("the agent told {what}; it told {:?}", self.events());
        let mut looked = from;
        let begun = std::time::Instant::now();
        until(what, || {
            let events = self.events();
            let found = events.iter().skip(looked).find_map(&mut pick);
            looked = events.len().max(from);
            let late = begun.elapsed() + Duration::from_secs(1) > crate::wait::DEADLINE;
            assert!(found.is_some() || !late, "waited in vain until {}", shown());
            found
        })
    }

    /// Waits until a tunnel is live; its URL.
    ///
    /// # Panics
    /// As [`Agent::wait`].
    pub fn wait_live(&self, name: &str) -> String {
        self.wait(&format!("{name} is live"), |event| live(event, name))
    }

    /// The same, after the first `from` events.
    ///
    /// # Panics
    /// As [`Agent::wait`].
    pub fn wait_live_from(&self, from: usize, name: &str) -> String {
        self.wait_from(from, &format!("{name} is live again"), |event| {
            live(event, name)
        })
    }

    /// Stops it in order and gives back how it ended.
    ///
    /// # Panics
    /// When its task panicked.
    pub fn stop(mut self) -> Result<(), AgentError> {
        self.stop.cancel();
        self.finish()
    }

    /// Waits for its own end.
    ///
    /// # Panics
    /// When its task panicked, or does not end.
    pub fn ended(mut self) -> Result<(), AgentError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), AgentError> {
        let task = self.task.take().expect("a task");
        let within = async { tokio::time::timeout(crate::wait::DEADLINE, task).await };
        let ended = self.runtime.block_on(within);
        ended
            .expect("the agent ends")
            .expect("the agent's task does not panic")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take().filter(|_| std::thread::panicking()) {
            task.abort();
        }
    }
}

fn live(event: &AgentEvent, wanted: &str) -> Option<String> {
    match event {
        AgentEvent::Live { tunnel, url, .. } if tunnel.as_str() == wanted => Some(url.clone()),
        _ => None,
    }
}
