//! What an agent says about itself, as lines for people.

use adit_agent::{AgentReport, LocalPort, OwnTunnel, TroubleReport};

use super::page::{Look, short};
use super::table::{Row, Table, number, text};
use super::units::{bytes, count, millis, span};

/// `adit status` on an agent's machine.
pub(crate) fn agent(report: &AgentReport, look: Look) -> Vec<String> {
    let mut blocks = vec![look.sentence(&head(report)), link(report, look)];
    if !report.tunnels.is_empty() {
        blocks.push(tunnels(report, look));
    }
    if !report.forwards.is_empty() {
        blocks.push(forwards(report, look));
    }
    blocks.extend(troubles(report, look));
    blocks.join(&String::new())
}

fn head(report: &AgentReport) -> String {
    let (key, up) = (short(&report.agent), span(report.uptime_seconds));
    let stopping = if report.stopping { ", stopping" } else { "" };
    format!(
        "adit {}, agent {key}, process {}, up {up}{stopping}",
        report.version, report.process
    )
}

fn link(report: &AgentReport, look: Look) -> Vec<String> {
    let Some(link) = &report.link else {
        return match &report.trouble {
            Some(trouble) => {
                let time = span(report.time.saturating_sub(trouble.since));
                let what = format!("there is no link to the edge for {time}");
                look.whole(&said(&what, trouble))
            }
            None => look.sentence("there is no link to the edge yet"),
        };
    };
    let columns = vec![
        text("EDGE"),
        text("ADDRESS").cut(12),
        number("UP"),
        number("RTT"),
        text("CARRIER"),
    ];
    let cells = vec![
        short(&link.edge),
        link.address.clone(),
        span(report.time.saturating_sub(link.since)),
        link.rtt_us.map_or_else(|| "-".to_owned(), millis),
        link.carrier.clone(),
    ];
    look.table(&Table::new(columns, vec![cells.into()]), usize::MAX)
}

fn tunnels(report: &AgentReport, look: Look) -> Vec<String> {
    let columns = vec![
        text("TUNNEL").cut(6),
        text("KIND").leaves(2),
        text("STATE"),
        number("NOW"),
        number("EVER").leaves(1),
        number("IN"),
        number("OUT"),
    ];
    let row = |tunnel: &OwnTunnel| Row {
        cells: vec![
            tunnel.name.clone(),
            tunnel.kind.clone(),
            tunnel.state.clone(),
            count(tunnel.streams),
            count(tunnel.streams_ever),
            bytes(tunnel.bytes_in),
            bytes(tunnel.bytes_out),
        ],
        below: Some(match &tunnel.url {
            Some(url) => format!("{url} -> {}", tunnel.target),
            None => format!("-> {}", tunnel.target),
        }),
    };
    let rows = report.tunnels.iter().map(row).collect();
    look.table(&Table::new(columns, rows), usize::MAX)
}

fn forwards(report: &AgentReport, look: Look) -> Vec<String> {
    let columns = vec![
        text("LOCAL PORT").cut(12),
        number("NOW"),
        text("TUNNEL").cut(6),
        text("OF").leaves(1),
    ];
    let row = |port: &LocalPort| {
        vec![
            port.listen.clone(),
            count(port.connections),
            port.name.clone(),
            short(&port.peer),
        ]
        .into()
    };
    let rows = report.forwards.iter().map(row).collect();
    look.table(&Table::new(columns, rows), usize::MAX)
}

fn troubles(report: &AgentReport, look: Look) -> Vec<Vec<String>> {
    let of_tunnels = report.tunnels.iter().map(|one| (&one.name, &one.trouble));
    let of_ports = report.forwards.iter().map(|one| (&one.name, &one.trouble));
    let all = of_tunnels.chain(of_ports);
    let told = all.filter_map(|(name, trouble)| {
        let trouble = trouble.as_ref()?;
        let time = span(report.time.saturating_sub(trouble.since));
        Some(look.whole(&said(&format!("{name}, {time} ago"), trouble)))
    });
    told.collect()
}

fn said(what: &str, trouble: &TroubleReport) -> String {
    let code = trouble.code.as_ref();
    let code = code.map_or_else(String::new, |code| format!(" ({code})"));
    format!("{what}: {}{code}", trouble.text)
}

#[cfg(test)]
mod tests {
    use adit_agent::EdgeReport;

    use super::*;

    const LOOK: Look = Look {
        width: 80,
        bold: false,
    };

    fn report() -> AgentReport {
        AgentReport {
            agent: "ed25519:Qm3xYt1abcdefghijk".to_owned(),
            process: 4711,
            version: "0.1.0".to_owned(),
            time: 1_800_000_000,
            uptime_seconds: 13_000,
            link: Some(EdgeReport {
                edge: "ed25519:Zw9abcdefghijk".to_owned(),
                address: "203.0.113.7:7400".to_owned(),
                version: "0.1.0".to_owned(),
                since: 1_799_990_000,
                rtt_us: Some(23_400),
                carrier: "quic".to_owned(),
            }),
            tunnels: vec![OwnTunnel {
                name: "app".to_owned(),
                kind: "http".to_owned(),
                state: "live".to_owned(),
                url: Some("https://app.example.test".to_owned()),
                target: "http://localhost:3000".to_owned(),
                streams: 2,
                streams_ever: 1234,
                bytes_in: 412_000,
                bytes_out: 178_000_000,
                trouble: None,
            }],
            ..AgentReport::default()
        }
    }

    #[test]
    fn a_page_of_an_agent() {
        let mut report = report();
        report.forwards.push(LocalPort {
            name: "db".to_owned(),
            peer: "ed25519:Kk7abcdefghijk".to_owned(),
            listen: "127.0.0.1:5432".to_owned(),
            connections: 1,
            trouble: None,
        });
        assert_eq!(
            agent(&report, LOOK).join("\n"),
            "adit 0.1.0, agent Qm3xYt1a, process 4711, up 3 h

EDGE      ADDRESS            UP      RTT  CARRIER
Zw9abcde  203.0.113.7:7400  2 h  23.4 ms  quic

TUNNEL  KIND  STATE  NOW  EVER      IN     OUT
app     http  live     2  1234  412 kB  178 MB
  https://app.example.test -> http://localhost:3000

LOCAL PORT      NOW  TUNNEL  OF
127.0.0.1:5432    1  db      Kk7abcde"
        );
    }

    #[test]
    fn what_is_wrong_is_told_whole_and_steers_no_terminal() {
        let mut report = report();
        report.link = None;
        report.trouble = Some(TroubleReport {
            code: Some("ADIT-3001".to_owned()),
            text: "no way to the edge: 203.0.113.7:7400 by tcp: connection refused; \
                   by websocket: connection refused\u{1b}[2J"
                .to_owned(),
            since: 1_799_999_990,
        });
        let tunnel = &mut report.tunnels[0];
        (tunnel.state, tunnel.url) = ("waiting".to_owned(), None);
        let page = agent(&report, LOOK);
        assert_eq!(
            page[2..],
            [
                "there is no link to the edge for 10 s: no way to the edge: 203.0.113.7:7400 by",
                "  tcp: connection refused; by websocket: connection refused\u{fffd}[2J (ADIT-3001)",
                "",
                "TUNNEL  KIND  STATE    NOW  EVER      IN     OUT",
                "app     http  waiting    2  1234  412 kB  178 MB",
                "  -> http://localhost:3000",
            ]
        );
        assert!(page.iter().all(|line| line.chars().count() <= 80));
    }
}
