//! The listeners of all doors, bound before anything is served.

use std::io;
use std::net::SocketAddr;

use crate::config::EdgeConfig;
use crate::serve::StartError;
use crate::status::At;
use crate::{listen, quic};

/// Those of one door, one a worker.
pub(crate) type Listeners = Vec<std::net::TcpListener>;

/// The listeners of all doors, bound before anything is served.
pub(crate) struct Bound {
    pub(crate) http: Listeners,
    pub(crate) tls: Listeners,
    pub(crate) https: Listeners,
    pub(crate) link: Listeners,
    pub(crate) quic: Option<std::net::UdpSocket>,
    pub(crate) api: Option<std::net::TcpListener>,
}

impl Bound {
    pub(crate) fn open(config: &EdgeConfig, workers: usize) -> Result<Self, StartError> {
        let doors = &config.doors;
        let api = doors
            .api
            .map(|address| bind("API", address, 1))
            .transpose()?;
        let link = bind("link", doors.link, workers)?;
        Ok(Self {
            http: bind("HTTP", doors.http, workers)?,
            tls: doors
                .tls
                .map_or(Ok(Vec::new()), |address| bind("TLS", address, workers))?,
            https: doors
                .https
                .map_or(Ok(Vec::new()), |address| bind("HTTPS", address, workers))?,
            quic: doors
                .quic
                .map(|address| bind_quic(address, &link))
                .transpose()?,
            link,
            api: api.and_then(|mut listeners| listeners.pop()),
        })
    }

    /// Where the doors stand.
    pub(crate) fn at(&self, config: &EdgeConfig) -> Result<At, StartError> {
        let http = local("HTTP", &self.http, config.doors.http)?;
        let link = local("link", &self.link, config.doors.link)?;
        let tls = config.doors.tls;
        let tls = tls.map(|tls| local("TLS", &self.tls, tls)).transpose()?;
        let https = config.doors.https;
        let https = https.map(|https| local("HTTPS", &self.https, https));
        let https = https.transpose()?;
        let quic = self.quic.as_ref().map(std::net::UdpSocket::local_addr);
        let quic = quic.transpose().map_err(StartError::Worker)?;
        let api = self.api.as_ref().map(std::net::TcpListener::local_addr);
        let api = api.transpose().map_err(StartError::Worker)?;
        Ok(At {
            http,
            tls,
            https,
            link,
            quic,
            api,
        })
    }
}

/// A free port is the link door's number, where UDP has it free too.
fn bind_quic(
    address: SocketAddr,
    link: &[std::net::TcpListener],
) -> Result<std::net::UdpSocket, StartError> {
    let twin = link.first().and_then(|link| link.local_addr().ok());
    let twin = twin.filter(|_| address.port() == 0);
    let beside = twin.and_then(|link| {
        let address = SocketAddr::new(address.ip(), link.port());
        quic::bind(address).ok()
    });
    let bound = beside.map_or_else(|| quic::bind(address), Ok);
    bound.map_err(|error| StartError::Bind {
        door: "QUIC",
        address,
        error,
    })
}

fn bind(
    door: &'static str,
    address: SocketAddr,
    count: usize,
) -> Result<Vec<std::net::TcpListener>, StartError> {
    listen::bind(address, count).map_err(|error| StartError::Bind {
        door,
        address,
        error,
    })
}

fn local(
    door: &'static str,
    listeners: &[std::net::TcpListener],
    address: SocketAddr,
) -> Result<SocketAddr, StartError> {
    let first = listeners.first().ok_or(io::ErrorKind::NotFound.into());
    first
        .and_then(std::net::TcpListener::local_addr)
        .map_err(|error| StartError::Bind {
            door,
            address,
            error,
        })
}
