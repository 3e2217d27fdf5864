use std::env;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::BenchError;
use crate::hold::HELD;
use crate::process::{Running, Table, descriptors, resident};
use crate::subject::{Programs, adit};
use crate::workshop::Workshop;

/// How cost grows: one, ten, a hundred times as many.
const COUNTS: [usize; 3] = [20, 200, 2000];
/// Memory counts as settled when it has not grown for so long.
const CALM: Duration = Duration::from_secs(3);
/// The longest wait for that.
const MOST: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(250);
/// Over how long an idle edge's CPU time is read: several heartbeats.
const WATCH: Duration = Duration::from_secs(30);

/// An edge with idle links.
#[derive(Debug)]
pub(crate) struct Held {
    links: usize,
    /// Bytes before the first link.
    alone: u64,
    /// Bytes with all links.
    resident: u64,
    descriptors: usize,
    /// CPU seconds a second, with nothing but heartbeats to do.
    cpu: f64,
    /// Seconds from the first dial to the last tunnel that is live.
    joining: f64,
}

/// Measures an edge of its own for each number of links; also says what went
/// wrong with a number that is missing.
pub(crate) async fn measure(
    programs: &Programs,
    workshop: &Workshop,
) -> (Vec<Held>, Option<BenchError>) {
    let mut all = Vec::new();
    for links in COUNTS {
        eprintln!("bench: {links} idle links");
        match one(programs, workshop, links).await {
            Ok(held) => all.push(held),
            Err(why) => return (all, Some(why)),
        }
    }
    (all, None)
}

async fn one(programs: &Programs, workshop: &Workshop, links: usize) -> Result<Held, BenchError> {
    let dir = workshop.folder(&format!("idle-{links}"))?;
    let (edge, _) = adit::start_edge(programs, &dir, adit::Settings::Free).await?;
    let held = hold(&edge, &dir, links).await;
    edge.stop().await;
    held
}

async fn hold(edge: &Running, dir: &Path, links: usize) -> Result<Held, BenchError> {
    let gone = || BenchError::Failed("the edge has ended".into());
    let id = edge.id().ok_or_else(gone)?;
    let alone = settled(id).await.ok_or_else(gone)?;
    let own = env::current_exe().map_err(BenchError::io("find this program"))?;
    let arguments = [
        "hold".into(),
        dir.join("join").into_os_string(),
        links.to_string().into(),
    ];
    let begun = Instant::now();
    let mut agents = Running::start(&own, &arguments, dir, "agents")?;
    let log = agents.log().to_owned();
    agents
        .until(HELD, async || {
            fs::read_to_string(&log).is_ok_and(|said| said.contains(HELD))
        })
        .await?;
    let joining = begun.elapsed().as_secs_f64();
    let resident = settled(id).await.ok_or_else(gone)?;
    let (before, from) = (Table::read().cpu_seconds(&[id]), Instant::now());
    sleep(WATCH).await;
    let cpu = (Table::read().cpu_seconds(&[id]) - before) / from.elapsed().as_secs_f64();
    let descriptors = descriptors(id);
    agents.stop().await;
    Ok(Held {
        links,
        alone,
        resident,
        descriptors,
        cpu,
        joining,
    })
}

/// Resident bytes, once they have not grown for a while.
async fn settled(id: u32) -> Option<u64> {
    let begun = Instant::now();
    let (mut most, mut since) = (resident(id)?, begun);
    while since.elapsed() < CALM && begun.elapsed() < MOST {
        sleep(LOOK).await;
        let now = resident(id)?;
        if now > most {
            (most, since) = (now, Instant::now());
        }
    }
    resident(id)
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.resident.saturating_sub(self.alone) as f64 / self.links as f64 / 1024.0;
        write!(
            f,
            "| {} | {:.1} (alone {:.1}) | {each:.1} | {} | {:.1} | {:.0} |",
            self.links,
            self.resident as f64 / 1e6,
            self.alone as f64 / 1e6,
            self.descriptors,
            self.cpu * 1e3,
            self.links as f64 / self.joining,
        )
    }
}
