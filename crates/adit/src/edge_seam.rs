//! Where commands meet the edge.

use std::net::SocketAddr;

use adit_edge::Edge;
use adit_edge::Reached;
use adit_edge::StartError;
use adit_edge::config::EdgeConfig;
use adit_edge::control::ControlError;
use adit_edge::control::client::{Client, Place};
use adit_model::{Code, JoinString};

use crate::failure::Failure;

/// Doors whose address is an option of the command line, too.
const OPTIONS: [&str; 4] = ["http", "https", "link", "api"];

/// Starts an edge with all its doors. `elsewhere` says where else than by an
/// option its doors are set.
///
/// # Errors
/// Which door, file or limit was in the way.
pub(crate) async fn start(config: EdgeConfig, elsewhere: &str) -> Result<Edge, Failure> {
    Edge::start(config).await.map_err(|error| {
        let code = error.code();
        if let StartError::Bind { door, address, .. } = &error
            && code == Code::PORT_IN_USE
        {
            let port = address.port();
            let free = SocketAddr::new(address.ip(), port.checked_add(1).unwrap_or(0));
            let key = door.to_ascii_lowercase();
            let other = if OPTIONS.contains(&&*key) {
                format!("--{key} {free}{elsewhere}")
            } else {
                format!("{key} = \"{free}\" under [doors]")
            };
            let sockets = if key == "quic" { "-lunp" } else { "-ltnp" };
            let remedy = format!(
                "see who listens there (ss {sockets} 'sport = :{port}') and stop it, \
                 or give the door another address: {other}"
            );
            return Failure::with(code, error, remedy);
        }
        Failure::new(code, error)
    })
}

/// A join string that leads somewhere: without a running edge, a door whose
/// port is chosen at its start has no address yet.
///
/// # Errors
/// It would lead nowhere.
pub(crate) fn leads_somewhere(join: &JoinString) -> Result<(), Failure> {
    if !join.addresses.iter().any(|address| address.ends_with(":0")) {
        return Ok(());
    }
    let what = "no edge runs, and the link door's port 0 is chosen at its start";
    let remedy = "start the edge first, or name a port: --link 127.0.0.1:7400";
    Err(Failure::with(Code::NO_EDGE_RUNNING, what, remedy))
}

/// The owner's desk of an edge: the running one, else its files.
///
/// # Errors
/// Neither can be reached.
pub(crate) fn desk(config: &EdgeConfig, may_create: bool) -> Result<Client, Failure> {
    // When no edge runs that could say where agents reach it.
    let place = Place {
        data: config.server.data.clone(),
        reached: Reached::configured(config),
        secret: config.admission.secret.clone(),
    };
    Client::open(place, may_create).map_err(refused)
}

/// An administration's error as a failure of a command.
pub(crate) fn refused(error: ControlError) -> Failure {
    Failure::new(error.code(), error)
}
