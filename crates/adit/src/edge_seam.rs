//! Where commands meet the edge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use adit_edge::Edge;
use adit_edge::StartError;
use adit_edge::config::EdgeConfig;
use adit_edge::control::ControlError;
use adit_edge::control::client::{Client, Place};
use adit_model::Code;

use crate::failure::Failure;

/// Starts an edge with all its doors.
///
/// # Errors
/// Which door, file or limit was in the way.
pub(crate) async fn start(config: EdgeConfig) -> Result<Edge, Failure> {
    Edge::start(config).await.map_err(|error| {
        let code = error.code();
        if let StartError::Bind { address, .. } = &error
            && code == Code::PORT_IN_USE
        {
            let port = address.port();
            let remedy = format!(
                "see who listens there (ss -ltnp 'sport = :{port}') and stop it, \
                 or give the door another address in [doors]"
            );
            return Failure::with(code, error, remedy);
        }
        Failure::new(code, error)
    })
}

/// The owner's desk of an edge: the running one, else its files.
///
/// # Errors
/// Neither can be reached.
pub(crate) fn desk(config: &EdgeConfig, may_create: bool) -> Result<Client, Failure> {
    let place = Place {
        data: config.server.data.clone(),
        addresses: vec![reached_at(config)],
        secret: config.admission.secret.clone(),
    };
    Client::open(place, may_create).map_err(refused)
}

/// An administration's error as a failure of a command.
pub(crate) fn refused(error: ControlError) -> Failure {
    Failure::new(error.code(), error)
}

/// Where agents reach the link door when no edge runs that could say so.
fn reached_at(config: &EdgeConfig) -> String {
    let link = config.doors.link;
    let ip = match link.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let own = SocketAddr::new(ip, link.port()).to_string();
    config.server.public.clone().unwrap_or(own)
}
