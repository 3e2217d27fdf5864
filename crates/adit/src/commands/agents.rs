//! `adit agents`: who may join an edge.

use adit_edge::control::AgentInfo;
use clap::Subcommand;

use super::place::EdgePlace;
use crate::{Outcome, edge_seam, terminal};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// List the agents that the edge has admitted
    #[command(after_help = "Examples:
  adit agents list --config server.toml
  adit agents list --json")]
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: EdgePlace,
    },
    /// Take an agent's right to join; its live streams end within a second
    #[command(after_help = "Examples:
  adit agents revoke laptop
  adit agents revoke ed25519:AbCd…

While the shared secret stands, an agent that knows it may enrol anew; replace
it too where that matters: adit secret rotate.")]
    Revoke {
        /// Its key, or its label
        agent: String,
        #[command(flatten)]
        place: EdgePlace,
    },
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        Sub::List { json, place } => {
            let agents = place.desk(false)?.agents().map_err(edge_seam::refused)?;
            list(&agents, *json)
        }
        Sub::Revoke { agent, place } => {
            let revoked = place
                .desk(false)?
                .revoke(agent)
                .map_err(edge_seam::refused)?;
            let links = match revoked.links {
                Some(1) => ", 1 live link ended".to_owned(),
                Some(count) => format!(", {count} live links ended"),
                None => ", no edge runs".to_owned(),
            };
            terminal::print(&format!("revoked {}{links}", revoked.key));
            Ok(())
        }
    }
}

fn list(agents: &[AgentInfo], json: bool) -> Outcome {
    if json {
        let text = serde_json::to_string(agents).map_err(std::io::Error::other)?;
        return Ok(terminal::print_whole(&format!("{text}\n"))?);
    }
    if agents.is_empty() {
        terminal::print("no agent has joined yet; the join string: adit server --print-join");
        return Ok(());
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let rows: Vec<[String; 5]> = agents.iter().map(|agent| row(agent, now)).collect();
    Ok(terminal::print_whole(&table(
        &["KEY", "LABEL", "STATE", "ADMITTED BY", "SEEN"],
        &rows,
    ))?)
}

fn row(agent: &AgentInfo, now: u64) -> [String; 5] {
    let state = match agent.links {
        Some(0) => "away".to_owned(),
        Some(1) => "live".to_owned(),
        Some(links) => format!("live, {links} links"),
        None => "no edge runs".to_owned(),
    };
    let scope = agent
        .scope
        .as_ref()
        .map_or_else(String::new, |s| format!(", only {s}"));
    [
        agent.key.clone(),
        agent.name.clone().unwrap_or_else(|| "-".to_owned()),
        state,
        format!("{}{scope}", agent.admitted_by),
        ago(now.saturating_sub(agent.last_seen)),
    ]
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => "now".to_owned(),
        s @ 120..7200 => format!("{} min ago", s / 60),
        s @ 7200..172_800 => format!("{} h ago", s / 3600),
        s => format!("{} d ago", s / 86_400),
    }
}

/// Columns as wide as their widest cell; the last one is not padded.
fn table<const N: usize>(head: &[&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let text = padded.collect::<Vec<_>>().join("  ");
        format!("{}\n", terminal::plain(text.trim_end()))
    };
    let head = line(head.to_vec());
    let body = rows
        .iter()
        .map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(head).chain(body).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_shown_in_columns() {
        let agent = AgentInfo {
            key: "ed25519:abc".to_owned(),
            name: Some("lap\u{1b}top".to_owned()),
            admitted_by: "token 0a1b2c3d".to_owned(),
            scope: Some("app".to_owned()),
            first_seen: 0,
            last_seen: 1000,
            links: Some(1),
        };
        let rows = [row(&agent, 1300)];
        assert_eq!(
            table(&["KEY", "LABEL", "STATE", "ADMITTED BY", "SEEN"], &rows),
            "KEY          LABEL    STATE  ADMITTED BY               SEEN\n\
             ed25519:abc  lap\u{fffd}top  live   token 0a1b2c3d, only app  5 min ago\n"
        );
    }
}
