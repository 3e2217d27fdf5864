//! The command line: names of commands, and what clap's refusals look like.

use std::process::ExitCode;

use adit_model::Code;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::commands::{
    agents, bans, client, completions, config, edge, explain, guests, http, join, key, private,
    secret, server, status, tcp, top, udp,
};
use crate::{demo, terminal};

/// Your own way in to everything you run: one server publishes services that
/// live anywhere, without a port opened where they live.
#[derive(Debug, Parser)]
#[command(
    name = "adit",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Examples:
  adit demo                          everything on this machine, to look at
  adit server --domain example.test  an edge; prints the join string and the PIN
  adit join adit1…                   this machine becomes an agent of that edge
  adit http 3000                     publish what listens on port 3000
  adit tcp 22 --port 2222            publish port 22 as port 2222 of the edge

Exit status: 0 done, 1 failed, 2 wrong use, 3 refused by the other side,
4 the other side was not reached."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run edge, agent and a sample site on this machine
    Demo(demo::Args),
    /// Run an edge: the public side
    Server(server::Args),
    /// Make this machine an agent of an edge
    Join(join::Args),
    /// Publish one HTTP service
    Http(http::Args),
    /// Publish one TCP service
    Tcp(tcp::Args),
    /// Publish one UDP service
    Udp(udp::Args),
    /// Publish one service that speaks TLS itself, by name
    Tls(tcp::TlsArgs),
    /// Offer one service to other agents alone
    Private(private::Args),
    /// Reach a private service of another agent at a local port
    Forward(private::ForwardArgs),
    /// Publish the tunnels of a configuration file
    Client(client::Args),
    /// Check, describe or show configuration files
    #[command(subcommand)]
    Config(config::Sub),
    /// Make or show an identity
    #[command(subcommand)]
    Key(key::Sub),
    /// Show what the edge and the agents on this machine do
    Status(status::Args),
    /// Show what the edge does over and over, with rates
    Top(top::Args),
    /// List or revoke the agents of an edge
    #[command(subcommand)]
    Agents(agents::Sub),
    /// List, speak or lift bans of addresses
    #[command(subcommand)]
    Bans(bans::Sub),
    /// Let addresses in to tunnels that take guests only
    #[command(subcommand)]
    Guests(guests::Sub),
    /// Replace the edge's shared secret
    #[command(subcommand)]
    Secret(secret::Sub),
    /// List or forget the edges that this machine has joined
    #[command(subcommand)]
    Edge(edge::Sub),
    /// Say what an error code means and what to do
    Explain(explain::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

/// Prints help, version, or what is wrong with the command line.
pub(crate) fn refused(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        let text = if terminal::out_has_colour() {
            error.render().ansi().to_string()
        } else {
            error.render().to_string()
        };
        terminal::print(text.trim_end());
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let text = match text.strip_prefix("error:") {
        Some(rest) => format!("error {}:{rest}", Code::USAGE),
        None => text,
    };
    terminal::note(text.trim_end());
    ExitCode::from(Code::USAGE.fault().exit_status())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn every_command(
        command: &clap::Command,
        path: &str,
        see: &mut dyn FnMut(&str, &clap::Command),
    ) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name());
            see(&path, sub);
            every_command(sub, &path, see);
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_that_does_something_has_an_example_that_parses() {
        every_command(&Cli::command(), "adit", &mut |path, command| {
            if command.is_subcommand_required_set() {
                return;
            }
            let help = command.clone().render_help().to_string();
            let (_, examples) = help
                .split_once("Example")
                .unwrap_or_else(|| panic!("{path} has no example"));
            let lines: Vec<&str> = examples
                .lines()
                .filter_map(|line| line.trim().split("  ").next())
                .filter(|line| line.starts_with(path))
                .collect();
            assert!(!lines.is_empty(), "{path}:\n{help}");
            for line in lines {
                let parsed = Cli::try_parse_from(line.split_whitespace());
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            }
        });
    }
}
