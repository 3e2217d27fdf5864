//! `adit agents`: who may join an edge.

use adit_edge::control::AgentInfo;
use clap::Subcommand;

use super::place::EdgePlace;
use crate::report::{Table, span, text};
use crate::{Outcome, edge_seam, terminal};

#[derive(Debug, Subcommand)]
pub(crate) enum Sub {
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

pub(crate) fn run(command: &Sub) -> Outcome {
    match command {
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
        return Ok(terminal::print_json(&agents)?);
    }
    if agents.is_empty() {
        terminal::print("no agent has joined yet; the join string: adit server --print-join");
        return Ok(());
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let lines = table(agents, now).lines(usize::MAX, usize::MAX);
    Ok(terminal::print_whole(&format!("{}\n", lines.join("\n")))?)
}

/// Every column whole, however wide: keys are copied from here.
fn table(agents: &[AgentInfo], now: u64) -> Table {
    let heads = ["KEY", "LABEL", "STATE", "ADMITTED BY", "SEEN"];
    let rows = agents.iter().map(|agent| row(agent, now).into());
    Table::new(heads.map(text).to_vec(), rows.collect())
}

fn row(agent: &AgentInfo, now: u64) -> Vec<String> {
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
    vec![
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
        s => format!("{} ago", span(s)),
    }
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
        assert_eq!(
            table(&[agent], 1300).lines(usize::MAX, usize::MAX),
            [
                "KEY          LABEL    STATE  ADMITTED BY               SEEN",
                "ed25519:abc  lap\u{fffd}top  live   token 0a1b2c3d, only app  5 min ago",
            ]
        );
    }
}
