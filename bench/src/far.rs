//! The long path: edge and visitors at one end of a network that the bench
//! makes, agent and service at the other.
//!
//! The bench starts itself a second time inside the edge's end; only what
//! belongs to the other end is placed there word by word.

use std::env;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use adit_testkit::network::{Condition, Network};
use tokio::process;

use crate::command::Command;
use crate::error::BenchError;

/// Megabits a second that the line carries, headers included.
pub(crate) const LINE: f64 = 100.0;
/// One way.
const DELAY: Duration = Duration::from_millis(40);
/// The share of packets that is lost, each way.
const LOSS: f64 = 0.001;
/// Bytes that wait in front of the line: as many as fill it for 80 ms.
const QUEUE: usize = 1_000_000;
const EDGE: &str = "edge";
const HOME: &str = "home";

/// Where the two sides of a subject are.
#[derive(Debug, Clone)]
pub(crate) struct Sides {
    /// Where agents reach the edge's side.
    pub(crate) edge: IpAddr,
    /// Where the service listens.
    pub(crate) service: IpAddr,
    /// Words in front of a program that place it beside the service.
    pub(crate) words: Vec<String>,
}

/// Both on the loopback, or apart where this process was placed.
pub(crate) fn sides(command: &Command) -> Result<Sides, BenchError> {
    let Some(words) = &command.placed else {
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        return Ok(Sides {
            edge: here,
            service: here,
            words: Vec::new(),
        });
    };
    let mut words = words.split(' ').map(str::to_owned);
    let mut address = || {
        let text = words.next().unwrap_or_default();
        text.parse()
            .map_err(|_| BenchError::Failed(format!("no address: {text}")))
    };
    let (edge, service) = (address()?, address()?);
    Ok(Sides {
        edge,
        service,
        words: words.collect(),
    })
}

/// Makes the network, and measures from inside it.
pub(crate) async fn run(command: &Command) -> Result<(), BenchError> {
    let network = Network::new(&[EDGE, HOME]);
    let (edge, home) = (network.end(EDGE), network.end(HOME));
    for end in [edge, home] {
        end.sysctl("net.ipv4.tcp_congestion_control", &command.congestion);
    }
    network.set(&[
        Condition::Delay(DELAY),
        Condition::Loss(LOSS),
        Condition::Rate(LINE),
        Condition::Queue(QUEUE),
    ]);
    let own = env::current_exe().map_err(BenchError::io("find its own program"))?;
    let placed = format!(
        "{} {} {}",
        edge.address(),
        home.address(),
        home.words().join(" ")
    );
    let mut inner = process::Command::from(edge.command(own));
    inner
        .args(env::args_os().skip(1))
        .arg("--placed")
        .arg(placed);
    let status = inner
        .kill_on_drop(true)
        .status()
        .await
        .map_err(BenchError::io("start itself"))?;
    if status.success() {
        return Ok(());
    }
    Err(BenchError::Failed(format!("at its end: {status}")))
}
