//! The ports that are opened for tunnels.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Ground, Visitors, connections};
use crate::config::EdgeConfig;
use crate::metrics::Door;
use crate::ports::{Leads, Opener, PortSettings, Ports};
use crate::seldom::Seldom;
use crate::status::At;
use crate::tcp::TcpDoor;
use crate::udp::{Census, FlowLimits, IdleTimes, UdpDoor};

impl Ground {
    fn opener(&self, to: Leads) -> Opener {
        Opener {
            to,
            counted: self.counted(Door::Tcp),
            workers: self.workers.clone(),
            doors: self.doors.clone(),
            streams: self.streams.clone(),
        }
    }
}

impl Visitors {
    /// The ports of TCP tunnels and those of UDP tunnels.
    pub(super) fn ports(
        &self,
        config: &EdgeConfig,
        ground: &Ground,
        at: &At,
        streams: &Arc<TcpDoor>,
    ) -> [Arc<Ports>; 2] {
        let opener = ground.opener(Leads::Tcp(Arc::clone(streams)));
        let tcp = Ports::new(port_settings(config, at.https.or(at.tls)), opener);
        let opener = ground.opener(Leads::Udp(self.flows(config, ground)));
        let udp = Ports::new(udp_port_settings(config), opener);
        [tcp, udp]
    }

    fn flows(&self, config: &EdgeConfig, ground: &Ground) -> Arc<UdpDoor> {
        let udp = &config.udp;
        let limits = FlowLimits {
            all: (udp.flows as usize).min(connections(config).div_ceil(2)),
            port: udp.per_port as usize,
            address: udp.per_address as usize,
        };
        let (places, metrics) = (Arc::clone(&self.places), Arc::clone(&ground.metrics));
        Arc::new(UdpDoor {
            registry: Arc::clone(&self.registry),
            rules: Arc::clone(&self.rules),
            limits: Arc::clone(&self.limits),
            metrics: Arc::clone(&ground.metrics),
            census: Census::new(limits, places, metrics),
            idle: IdleTimes {
                usual: udp.idle,
                answered: udp.answered,
            },
            log: self.log.clone(),
            seldom: Seldom::default(),
            tasks: ground.streams.clone(),
        })
    }
}

fn port_settings(config: &EdgeConfig, tls: Option<SocketAddr>) -> PortSettings {
    PortSettings {
        tls: tls.map(|tls| tls.port()),
        bind: config.doors.tcp_bind,
        ranges: config.doors.tcp_ports.clone(),
        host: config.server.domain.host().to_string(),
    }
}

fn udp_port_settings(config: &EdgeConfig) -> PortSettings {
    PortSettings {
        tls: None,
        bind: config.doors.udp_bind,
        ranges: config.doors.udp_ports.clone(),
        host: config.server.domain.host().to_string(),
    }
}
