//! Many agents in one process, for measuring what an idle link costs the edge.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use adit_link::agent::{AgentLink, BoxFuture, DialConfig, LinkEvent, Spot, StreamHandler, dial};
use adit_link::tasks::Tasks;
use adit_link::tls::unverified;
use adit_link::{Channel, Incoming};
use adit_model::{Carrier, Identity, InstanceId, JoinString, TunnelId, TunnelName};
use adit_wire::{Compression, Message, OpenTunnel, ResetReason, TunnelKind, TunnelState};
use tokio::task::JoinSet;

use crate::error::BenchError;

/// Handshakes at a time.
const AT_A_TIME: usize = 16;

/// What the process says when all links are up.
pub(crate) const HELD: &str = "all links are up";

/// Links `count` agents, each with an identity and a tunnel of its own, and
/// holds them until the process is ended or a link is lost.
pub(crate) async fn run(join: &Path, count: usize) -> Result<(), BenchError> {
    let text = fs::read_to_string(join).map_err(BenchError::io("read the join string"))?;
    let join: JoinString = text.trim().parse().map_err(failed)?;
    let join = Arc::new(join);
    let tasks = Tasks::new();
    let mut dials = JoinSet::new();
    let mut links = JoinSet::new();
    for number in 0..count {
        if dials.len() >= AT_A_TIME {
            settle(&mut dials, &mut links).await?;
        }
        dials.spawn(one(Arc::clone(&join), tasks.clone(), number));
    }
    while !dials.is_empty() {
        settle(&mut dials, &mut links).await?;
    }
    println!("{HELD}");
    match links.join_next().await {
        Some(Ok(why)) => Err(BenchError::Failed(format!("a link was lost: {why}"))),
        _ => Ok(()),
    }
}

/// Waits for one dial and begins to watch its link.
async fn settle(
    dials: &mut JoinSet<Result<AgentLink, BenchError>>,
    links: &mut JoinSet<String>,
) -> Result<(), BenchError> {
    let Some(done) = dials.join_next().await else {
        return Ok(());
    };
    let mut link = done.map_err(failed)??;
    links.spawn(async move {
        loop {
            if let LinkEvent::Lost(why) = link.event().await {
                return format!("{why:?}");
            }
        }
    });
    Ok(())
}

async fn one(join: Arc<JoinString>, tasks: Tasks, number: usize) -> Result<AgentLink, BenchError> {
    let config = DialConfig {
        spots: Vec::new(),
        tls: unverified().map_err(failed)?,
        edge: join.edge,
        psk: join.credential.psk().clone(),
        identity: Arc::new(Identity::from_seed(random()?).map_err(failed)?),
        instance: InstanceId(random()?),
        pin: None,
        tunnels: 1,
        handler: Arc::new(Nobody),
        tasks,
        workers: Vec::new(),
        counters: Arc::default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let spot = Spot {
        carrier: Carrier::Tcp,
        address: join.addresses[0].clone(),
        proxy: None,
    };
    let found = tokio::net::lookup_host(&spot.address).await;
    let mut peers = found.map_err(failed)?;
    let peer = peers.next().ok_or_else(|| failed("no address"))?;
    let mut link = dial(&config, &spot, peer, None).await.map_err(failed)?;
    let sent = link.send(Message::OpenTunnel(OpenTunnel {
        tunnel: TunnelId(1),
        name: TunnelName::parse(&format!("held-{number}")).map_err(failed)?,
        kind: TunnelKind::Http,
        exclusive: false,
        compression: Compression::Off,
        auth: None,
        host_header: None,
        target: "127.0.0.1:9".to_owned(),
        port: None,
    }));
    if !sent {
        return Err(failed("the edge takes no messages"));
    }
    loop {
        match link.event().await {
            LinkEvent::Message(Message::TunnelStatus(status)) => {
                return match status.state {
                    TunnelState::Live => Ok(link),
                    _ => Err(failed(status.text)),
                };
            }
            LinkEvent::Lost(why) => return Err(failed(format!("{why:?}"))),
            _ => {}
        }
    }
}

/// An idle link carries nothing.
struct Nobody;

impl StreamHandler for Nobody {
    fn handle(&self, incoming: Incoming) -> BoxFuture<Option<Channel>> {
        Box::pin(async move {
            incoming.refuse(ResetReason::TargetRefused).await;
            None
        })
    }
}

fn random<const N: usize>() -> Result<[u8; N], BenchError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| failed("no random bytes"))?;
    Ok(bytes)
}

fn failed(why: impl Into<Box<dyn Error>>) -> BenchError {
    BenchError::Failed(why.into().to_string())
}
