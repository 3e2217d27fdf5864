use std::collections::BTreeMap;
use std::time::Duration;

use crate::bulk;
use crate::command::{Command, Load, Name};
use crate::datagrams;
use crate::error::BenchError;
use crate::far;
use crate::http::{self, Seen};
use crate::idle;
use crate::origin::{Echo, Origin};
use crate::report::{Figure, Report};
use crate::subject::{Programs, Subject};
use crate::workshop::Workshop;

/// Before each load: long enough for pools to fill.
const WARM: Duration = Duration::from_millis(500);

/// Runs what the command asks for.
pub(crate) async fn run(command: &Command) -> Result<Report, BenchError> {
    let workshop = Workshop::open(command.keep.as_deref())?;
    let mut missing = Vec::new();
    let sides = far::sides(command)?;
    let mut programs = Programs::new(sides.clone());
    let mut names = Vec::new();
    for &name in command.subjects() {
        match programs.need(name, command).await {
            Ok(()) => names.push(name),
            Err(why) => missing.push((name, why.to_string())),
        }
    }
    let origin = Origin::start(&workshop, &sides).await?;
    let loads: Vec<_> = command.loads().to_vec();
    let loads: Vec<_> = loads
        .into_iter()
        .filter(|load| *load != Load::Idle)
        .collect();
    let echo = match loads.iter().any(|load| load.is_udp()) {
        true => Some(Echo::start(&workshop, &sides).await?),
        false => None,
    };
    let mut figures: BTreeMap<(Load, Name), Vec<Figure>> = BTreeMap::new();
    for round in 0..command.rounds {
        for turn in 0..names.len() {
            let Some(&name) = names.get((turn + round) % names.len()) else {
                continue;
            };
            eprintln!("bench: round {} of {}, {name}", round + 1, command.rounds);
            let loads = loads.iter().copied();
            let (udp, tcp): (Vec<_>, Vec<_>) = loads.partition(|load| load.is_udp());
            if !tcp.is_empty() {
                let started = Subject::start(name, &programs, &workshop, origin.address).await;
                let started = started.map(Some);
                carry_all(started, name, &tcp, command, &mut figures, &mut missing).await;
            }
            if let Some(echo) = &echo {
                let started = Subject::start_udp(name, &programs, &workshop, echo.address).await;
                carry_all(started, name, &udp, command, &mut figures, &mut missing).await;
            }
        }
    }
    let mut idle = Vec::new();
    if command.loads().contains(&Load::Idle) && names.contains(&Name::Adit) {
        let (held, failed) = idle::measure(&programs, &workshop).await;
        idle = held;
        missing.extend(failed.map(|why| (Name::Adit, format!("idle links: {why}"))));
    }
    origin.stop().await;
    if let Some(echo) = echo {
        echo.stop().await;
    }
    Ok(Report {
        figures,
        missing,
        idle,
        rounds: command.rounds,
        length: command.length(),
    })
}

/// Measures a subject by all these loads, and ends it.
async fn carry_all(
    started: Result<Option<Subject>, BenchError>,
    name: Name,
    loads: &[Load],
    command: &Command,
    figures: &mut BTreeMap<(Load, Name), Vec<Figure>>,
    missing: &mut Vec<(Name, String)>,
) {
    match started {
        Ok(Some(subject)) => {
            for &load in loads {
                let figure = measure(&subject, load, command.length()).await;
                figures.entry((load, name)).or_default().push(figure);
            }
            subject.stop().await;
        }
        Ok(None) => {}
        Err(why) => missing.push((name, why.to_string())),
    }
}

async fn measure(subject: &Subject, load: Load, length: Duration) -> Figure {
    carry(subject, load, WARM).await;
    let before = subject.cpu_seconds();
    let mut seen = carry(subject, load, length).await;
    let cpu = subject.cpu_seconds() - before;
    Figure {
        answers: seen.answers,
        errors: seen.errors,
        bytes: seen.bytes,
        seconds: seen.seconds,
        cpu,
        p50: seen.percentile(0.5),
        p99: seen.percentile(0.99),
        resident: subject.resident(),
    }
}

async fn carry(subject: &Subject, load: Load, length: Duration) -> Seen {
    let door = &subject.door;
    match load {
        Load::Keepalive => http::keepalive(door, 64, length).await,
        Load::New => http::fresh(door, 64, length).await,
        Load::Bulk1 => bulk::download(door, "/large", 1, length).await,
        Load::Bulk8 => bulk::download(door, "/large", 8, length).await,
        Load::Text1 => bulk::download(door, "/text", 1, length).await,
        Load::Conns16 => http::keepalive(door, 16, length).await,
        Load::Conns160 => http::keepalive(door, 160, length).await,
        Load::Conns1600 => http::keepalive(door, 1600, length).await,
        Load::Udp => datagrams::ask(door.address, 64, length).await,
        Load::UdpBulk => datagrams::bulk(door.address, 8, length).await,
        // Measured apart, with an edge of its own.
        Load::Idle => Seen::default(),
        Load::Stream => bulk::flow(door, length).await,
        Load::Beside => bulk::beside(door, length).await,
    }
}
