//! Where commands meet the edge.

use adit_edge::Edge;
use adit_edge::StartError;
use adit_edge::config::EdgeConfig;
use adit_edge::control::ControlError;
use adit_edge::control::client::{Client, Place};
use adit_edge::link_address;
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
    // When no edge runs that could say where agents reach it.
    let address = link_address(config.server.public.as_deref(), config.doors.link);
    let place = Place {
        data: config.server.data.clone(),
        addresses: vec![address],
        secret: config.admission.secret.clone(),
    };
    Client::open(place, may_create).map_err(refused)
}

/// An administration's error as a failure of a command.
pub(crate) fn refused(error: ControlError) -> Failure {
    Failure::new(error.code(), error)
}
