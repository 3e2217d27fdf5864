//! The two entries: the whole agent, and joining an edge once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_link::Counters;
use adit_link::agent::{DialConfig, DialError};
use adit_link::tasks::Tasks;
use adit_link::tls::unverified;
use adit_link::workers::Workers;
use adit_model::{Identity, InstanceId, JoinString, PublicKey};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agent::{Agent, telling};
use crate::allowed::AllowedTargets;
#[cfg(unix)]
use crate::desk;
use crate::error::{self, AgentError};
use crate::events::{AgentEvent, Refusal, RefusalKind, Teller};
use crate::forward::Forwarder;
use crate::forwards::Door;
use crate::known::Known;
use crate::ladder::{Carriage, Ladder};
use crate::pin::Pins;
use crate::random;
use crate::reach::reach;
use crate::settings::{AgentSettings, PinFrom, TunnelSettings};
use crate::state::{DataFolder, Joining};
#[cfg(unix)]
use crate::status::Sources;
use crate::tunnels::Tunnels;

/// How long tasks may take to end after their links have.
const LAST_TASKS: Duration = Duration::from_secs(2);

/// Runs an agent until `stop`, then lets open streams go on for
/// [`AgentSettings::drain`]. Dials again whenever the link ends. Ends at once,
/// its streams too, when the edge is forgotten ([`DataFolder::forget`]).
///
/// # Errors
/// Only where dialling again makes no sense: see [`AgentError`].
pub async fn run(
    settings: AgentSettings,
    events: mpsc::Sender<AgentEvent>,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let teller = Arc::new(Teller::new(events));
    let doors = Door::open(settings.forwards).await?;
    let tunnels = (settings.tunnels, settings.allowed_targets);
    let ready = Ready::prepare(settings.join, settings.data, tunnels).await?;
    let workers = match settings.workers {
        0 => None,
        count => Some(Workers::start("agent", count)?),
    };
    let handles = workers
        .iter()
        .flat_map(|workers| workers.handles().to_vec());
    let mut dial = ready.dial_config(Arc::clone(&teller))?;
    dial.workers = handles.collect();
    let tasks = dial.tasks.clone();
    for tunnel in ready.tunnels.all().iter().filter(|tunnel| tunnel.insecure) {
        teller.tell(AgentEvent::InsecureTarget {
            tunnel: tunnel.name.clone(),
            target: tunnel.target.clone(),
        });
    }
    #[cfg(unix)]
    {
        let sources = Sources {
            identity: ready.identity.public(),
            teller: Arc::clone(&teller),
            tunnels: Arc::clone(&ready.tunnels),
            forwards: doors.iter().map(Door::facts).collect(),
            started: Instant::now(),
        };
        desk::open(&tasks, ready.data, sources).await;
    }
    let pins = Pins::new(settings.pin);
    let mut agent = Agent::new(
        ready.known,
        ready.tunnels,
        Arc::clone(&teller),
        pins,
        dial,
        settings.carriage,
    );
    agent.open_doors(doors);
    let ended = telling(&teller, agent.live(&stop, settings.drain)).await;
    drop(agent);
    if !tasks.close(LAST_TASKS).await {
        tracing::warn!(left = tasks.len(), "some tasks did not end in time");
    }
    // Joining threads blocks; the runtime has threads for that.
    drop(tokio::task::spawn_blocking(move || drop(workers)).await);
    ended
}

/// Proves a join string to its edge and remembers it as the one to dial.
/// Tries once and changes nothing when that fails.
///
/// # Errors
/// See [`AgentError`].
pub async fn join(
    join: JoinString,
    data: PathBuf,
    pin: PinFrom,
    carriage: Carriage,
) -> Result<(PublicKey, Joining), AgentError> {
    let edge = join.edge;
    let nothing = (Vec::new(), AllowedTargets::default());
    let mut ready = Ready::prepare(Some(join.clone()), data, nothing).await?;
    let (unheard, _) = mpsc::channel(1);
    let teller = Arc::new(Teller::new(unheard));
    let mut pins = Pins::new(pin);
    // What its owner gives counts, not what is remembered: that may have been
    // revoked. It is tried where the string is refused, as a token is that
    // was used before.
    let mut own = ready.known.prove_by(&join);
    let mut config = ready.dial_config(teller)?;
    let known = &ready.known;
    config.spots = Ladder::new(carriage, false).spots(&known.addresses, &known.doors, (None, None));
    let link = loop {
        config.pin = pins.source();
        match reach(&config, None).await {
            Ok(link) => break link,
            Err(DialError::Silent) if pins.is_unjudged() => {}
            Err(DialError::Refused) if pins.ask_again() => {}
            Err(error @ (DialError::Silent | DialError::Refused)) => {
                let Some(own) = own.take() else {
                    return Err(ready.failed(error));
                };
                ready.known.prove_by_own(own.clone());
                config.psk = own;
            }
            Err(error) => return Err(ready.failed(error)),
        }
    };
    let joining = ready.data.join(&join)?;
    ready.known.learn(&link).await?;
    link.close();
    config.tasks.close(LAST_TASKS).await;
    Ok((edge, joining))
}

/// What is made before the first dial.
pub(crate) struct Ready {
    pub(crate) known: Known,
    pub(crate) tunnels: Arc<Tunnels>,
    identity: Arc<Identity>,
    data: DataFolder,
}

impl Ready {
    pub(crate) async fn prepare(
        join: Option<JoinString>,
        data: PathBuf,
        (tunnels, allowed): (Vec<TunnelSettings>, AllowedTargets),
    ) -> Result<Self, AgentError> {
        let blocking = move || {
            let data = DataFolder::open(&data)?;
            let identity = Arc::new(data.identity()?);
            let known = Known::find(join, data.clone())?;
            let tunnels = Arc::new(Tunnels::new(tunnels, allowed, &known.edge, &data)?);
            Ok(Self {
                known,
                tunnels,
                identity,
                data,
            })
        };
        let done = tokio::task::spawn_blocking(blocking).await;
        done.unwrap_or_else(|error| Err(AgentError::Worker(error.into())))
    }

    pub(crate) fn dial_config(&self, teller: Arc<Teller>) -> Result<DialConfig, AgentError> {
        let instance = random::bytes().map_err(|_| crate::StateError::Random)?;
        let tunnels = Arc::clone(&self.tunnels);
        Ok(DialConfig {
            spots: Vec::new(),
            tls: unverified()?,
            edge: self.known.edge,
            psk: self.known.psk.clone(),
            identity: Arc::clone(&self.identity),
            instance: InstanceId(instance),
            pin: None,
            tunnels: tunnels.all().len(),
            handler: Arc::new(Forwarder::new(
                tunnels,
                teller,
                TaskTracker::new(),
                Arc::clone(&self.identity),
            )),
            tasks: Tasks::new(),
            workers: Vec::new(),
            counters: Arc::new(Counters::default()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    fn failed(&self, error: DialError) -> AgentError {
        let refusal = |kind| {
            AgentError::Refused(Refusal {
                kind,
                own_secret: self.known.own_secret,
                retry_in: None,
            })
        };
        match error {
            DialError::Refused => refusal(RefusalKind::Said),
            DialError::Full => refusal(RefusalKind::Full),
            DialError::Silent => refusal(RefusalKind::Silent),
            DialError::PinWanted => AgentError::PinAbsent,
            DialError::WrongEdge {
                expected,
                presented,
            } => AgentError::WrongEdge {
                expected,
                presented,
            },
            DialError::Unreachable(unreached) => AgentError::Unreachable {
                code: error::unreached(unreached.way),
                why: format!("edge cannot be reached: {}", unreached.why),
            },
            DialError::Broken(why) => AgentError::Broken(why),
            DialError::Io(error) => AgentError::Worker(error),
        }
    }
}
