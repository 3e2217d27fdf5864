//! The commands, one file each.

pub(crate) mod agents;
pub(crate) mod bans;
pub(crate) mod client;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod edge;
pub(crate) mod explain;
pub(crate) mod guests;
pub(crate) mod http;
pub(crate) mod join;
pub(crate) mod key;
pub(crate) mod place;
pub(crate) mod private;
mod publish;
pub(crate) mod secret;
pub(crate) mod server;
pub(crate) mod status;
pub(crate) mod tcp;
mod token;
pub(crate) mod top;
pub(crate) mod udp;

use crate::cli::Command;
use crate::{Outcome, demo};

/// Runs a command to its end.
///
/// # Errors
/// Its failure.
pub(crate) fn run(command: Command) -> Outcome {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::Server(args) => server::run(&args),
        Command::Join(args) => join::run(&args),
        Command::Http(args) => http::run(&args),
        Command::Tcp(args) => tcp::run(&args),
        Command::Udp(args) => udp::run(&args),
        Command::Tls(args) => tcp::run_tls(&args),
        Command::Private(args) => private::run(&args),
        Command::Forward(args) => private::run_forward(&args),
        Command::Client(args) => client::run(&args),
        Command::Config(command) => config::run(&command),
        Command::Key(command) => key::run(&command),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Agents(command) => agents::run(&command),
        Command::Bans(command) => bans::run(&command),
        Command::Guests(command) => guests::run(&command),
        Command::Secret(command) => secret::run(&command),
        Command::Edge(command) => edge::run(&command),
        Command::Explain(args) => explain::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}
