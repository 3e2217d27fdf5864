//! From a configuration to the parts of an edge.
//!
//! Each part has settings of its own, so that none knows the configuration;
//! this is where one becomes the other.

mod ports;
mod secure;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use adit_link::tasks::Tasks;
use adit_link::{Counters, entropy};
use adit_link_proto::PinLimits;
use adit_model::{Credential, JoinString};
use adit_routing::{Route, RouteTable, Target};
use adit_wire::TunnelKind;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::access::{AccessLog, Form};
use crate::admission::{Admission, AdmissionSettings, KeyPolicy, PinPolicy, Policy, SystemClock};
use crate::announced::Balancers;
use crate::api::ApiDoor;
use crate::config::{self, EdgeConfig};
use crate::control::Control;
use crate::http::{DoorParts, HttpDoor, HttpSettings};
use crate::https::HttpsDoor;
use crate::limits::{LimitSettings, Limits, Threshold, UnprovedSockets};
use crate::link::{LinkDoor, LinkSettings, Trunks};
use crate::listen::Counted;
use crate::metrics::{Door, Metrics, descriptor_limit};
use crate::ports::Ports;
use crate::private::PrivateDoor;
use crate::reached::Reached;
use crate::registry::{Registry, RegistryRules};
use crate::rules::Rules;
use crate::seldom::Seldom;
use crate::serve::{Facts, StartError};
use crate::sni::ByName;
use crate::state::{Seen, Store};
use crate::status::{At, Sources, Status};
use crate::tcp::TcpDoor;
use crate::tls::watch::Watch;
use crate::{auth, sync_stats};

/// Agents that may be proving themselves at a time, those included that wait
/// for a person to type the PIN; others wait for their turn.
const HANDSHAKES: usize = 1024;

/// What everything runs on.
pub(crate) struct Ground {
    pub(crate) workers: Vec<Handle>,
    pub(crate) metrics: Arc<Metrics>,
    /// Of the links' driver.
    pub(crate) counters: Arc<Counters>,
    pub(crate) seldom: Arc<Seldom>,
    /// Owner of listeners.
    pub(crate) doors: Tasks,
    /// Owner of visitors.
    pub(crate) streams: Tasks,
    /// Owner of links.
    pub(crate) links: Tasks,
}

impl Ground {
    /// Where trunks run.
    fn trunks(&self) -> Trunks {
        Trunks {
            tasks: self.links.clone(),
            workers: self.workers.clone(),
        }
    }

    /// Where a door's connections are counted.
    pub(crate) fn counted(&self, door: Door) -> Counted {
        Counted {
            door,
            metrics: Arc::clone(&self.metrics),
            seldom: Arc::clone(&self.seldom),
        }
    }
}

/// Everything that the doors serve with.
pub(crate) struct Parts {
    pub(crate) http: Arc<HttpDoor>,
    pub(crate) tls: (Arc<TcpDoor>, Arc<ByName>),
    pub(crate) https: Option<Arc<HttpsDoor>>,
    /// The certificates of that door.
    pub(crate) watch: Option<Watch>,
    pub(crate) link: Arc<LinkDoor>,
    pub(crate) api: Arc<ApiDoor>,
    pub(crate) control: Arc<Control>,
    pub(crate) registry: Arc<Registry>,
    /// With the kind of tunnels that each is for.
    pub(crate) ports: [(Arc<Ports>, TunnelKind); 2],
    pub(crate) admission: Arc<Admission>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) counters: Arc<Counters>,
    reached: Reached,
    url_pattern: String,
}

impl Parts {
    fn join_string(&self) -> JoinString {
        let store = self.admission.store();
        let credential = Credential::Shared(store.shared_secret());
        self.reached.join(store.identity().public(), credential)
    }

    /// What the edge says about itself.
    pub(crate) fn facts(&self, at: &At) -> Facts {
        Facts {
            http: at.http,
            tls: at.tls,
            https: at.https,
            certificate: self.watch.as_ref().map(|w| w.generated().fingerprint()),
            link: at.link,
            quic: at.quic,
            api: at.api,
            fingerprint: self.admission.identity().public(),
            join: self.join_string(),
            pin: self.admission.current_pin(),
            url_pattern: self.url_pattern.clone(),
        }
    }
}

/// What the doors of visitors share.
struct Visitors {
    registry: Arc<Registry>,
    rules: Arc<Rules>,
    limits: Arc<Limits>,
    places: Arc<Semaphore>,
    log: Option<Arc<AccessLog>>,
}

impl Visitors {
    fn new(
        config: &EdgeConfig,
        registry: &Arc<Registry>,
        rules: &Arc<Rules>,
        limits: &Arc<Limits>,
    ) -> Result<Self, StartError> {
        let log = config
            .log
            .access
            .then(|| AccessLog::start(log_form(config), std::io::stderr()));
        Ok(Self {
            registry: Arc::clone(registry),
            rules: Arc::clone(rules),
            limits: Arc::clone(limits),
            places: Arc::new(Semaphore::new(connections(config))),
            log: log.transpose().map_err(StartError::Worker)?,
        })
    }

    fn streams(&self, config: &EdgeConfig, ground: &Ground) -> Arc<TcpDoor> {
        Arc::new(TcpDoor {
            registry: Arc::clone(&self.registry),
            rules: Arc::clone(&self.rules),
            limits: Arc::clone(&self.limits),
            metrics: Arc::clone(&ground.metrics),
            places: Arc::clone(&self.places),
            balancers: balancers(config),
            log: self.log.clone(),
            tasks: ground.streams.clone(),
        })
    }

    fn private(&self, ground: &Ground) -> Arc<PrivateDoor> {
        Arc::new(PrivateDoor {
            registry: Arc::clone(&self.registry),
            rules: Arc::clone(&self.rules),
            limits: Arc::clone(&self.limits),
            metrics: Arc::clone(&ground.metrics),
            places: Arc::clone(&self.places),
            log: self.log.clone(),
            tasks: ground.streams.clone(),
        })
    }

    fn api(&self, ground: &Ground) -> Arc<ApiDoor> {
        Arc::new(ApiDoor {
            metrics: Arc::clone(&ground.metrics),
            limits: Arc::clone(&self.limits),
            rules: Arc::clone(&self.rules),
            ledger: Arc::clone(self.registry.ledger()),
        })
    }

    fn http(
        &self,
        config: &EdgeConfig,
        ground: &Ground,
        at: &At,
        stats: sync_stats::SyncStats,
    ) -> Result<Arc<HttpDoor>, StartError> {
        let parts = DoorParts {
            settings: http_settings(config, at),
            pools: Arc::clone(&self.registry) as _,
            limits: Arc::clone(&self.limits),
            metrics: Arc::clone(&ground.metrics),
            places: Arc::clone(&self.places),
            balancers: balancers(config),
            passwords: Arc::new(auth::PasswordCache::new()?),
            stats: Arc::new(stats),
            log: self.log.clone(),
            tasks: ground.streams.clone(),
            workers: ground.workers.len(),
        };
        Ok(HttpDoor::new(parts, table(config)?))
    }
}

/// Builds all parts; nothing runs yet.
pub(crate) fn parts(
    config: &EdgeConfig,
    kept: (Arc<Store>, Seen),
    at: &At,
    ground: &Ground,
) -> Result<Parts, StartError> {
    let metrics = Arc::clone(&ground.metrics);
    let limits = Limits::new(limit_settings(config), Arc::clone(&metrics), Instant::now());
    let watch = secure::watch(config, at, &kept.0, &metrics)?;
    let admission = admission(config, kept, &limits, &metrics)?;
    let rules = Arc::new(rules(config, Instant::now()));
    let registry = Registry::new(registry_rules(config, Arc::clone(&rules)));
    let url_pattern = url_pattern(config, at);
    let reached = Reached::at(config, at.link, at.quic, at.https);
    let visitors = Visitors::new(config, &registry, &rules, &limits)?;
    let streams = visitors.streams(config, ground);
    let [ports, udp_ports] = visitors.ports(config, ground, at, &streams);
    let status = Status::new(Sources {
        registry: Arc::clone(&registry),
        metrics: Arc::clone(&metrics),
        limits: Arc::clone(&limits),
        ports: Arc::clone(&ports),
        udp_ports: Arc::clone(&udp_ports),
        doors: at.doors(&config.doors),
        certificates: watch.as_ref().map(|w| Arc::clone(w.certificates())),
        url_pattern: url_pattern.clone(),
    });
    let (told, counted) = (Arc::clone(&status) as _, Arc::clone(&metrics));
    let stats = sync_stats::SyncStats::new(Arc::clone(&admission), told, counted);
    let http = visitors.http(config, ground, at, stats)?;
    let owner = (Arc::clone(&rules), limits);
    let names = ByName::new(Arc::clone(&http));
    let https = secure::https(config, watch.as_ref(), (&http, &streams, &names))?;
    Ok(Parts {
        https,
        watch,
        tls: (streams, names),
        http,
        link: Arc::new(LinkDoor {
            admission: Arc::clone(&admission),
            registry: Arc::clone(&registry),
            ports: Arc::clone(&ports),
            udp_ports: Arc::clone(&udp_ports),
            rules: Arc::clone(&rules),
            private: visitors.private(ground),
            unproved: UnprovedSockets::new(config.limits.unproved as usize, Arc::clone(&metrics)),
            handshakes: Semaphore::new(HANDSHAKES),
            metrics: Arc::clone(&metrics),
            counters: Arc::clone(&ground.counters),
            settings: link_settings(config, (&url_pattern, &reached), ground.workers.len()),
            next_link: AtomicU64::new(1),
            trunks: ground.trunks(),
        }),
        api: visitors.api(ground),
        control: Control::new(Arc::clone(&admission), reached.clone(), status, owner),
        registry,
        ports: [(ports, TunnelKind::Tcp), (udp_ports, TunnelKind::Udp)],
        admission,
        metrics,
        counters: Arc::clone(&ground.counters),
        reached,
        url_pattern,
    })
}

fn admission(
    config: &EdgeConfig,
    (store, seen): (Arc<Store>, Seen),
    limits: &Arc<Limits>,
    metrics: &Arc<Metrics>,
) -> Result<Arc<Admission>, StartError> {
    let admission = Admission::new(
        admission_settings(config),
        store,
        &seen,
        Arc::clone(limits),
        Arc::clone(metrics),
        Arc::new(SystemClock),
    );
    Ok(Arc::new(admission?))
}

fn log_form(config: &EdgeConfig) -> Form {
    Form {
        format: config.log.format,
        queries: config.log.queries,
    }
}

/// `https://{name}.example.test`, or `http://{name}.example.test:8080` without
/// that door, the port left out where it is the scheme's own; or as the
/// configuration says that visitors see it.
fn url_pattern(config: &EdgeConfig, at: &At) -> String {
    if let Some(url) = &config.server.url {
        return url.pattern();
    }
    let (scheme, door, own) = match at.https {
        Some(https) => ("https", https, 443),
        None => ("http", at.http, 80),
    };
    let port = match door.port() {
        port if port == own => String::new(),
        port => format!(":{port}"),
    };
    format!("{scheme}://{{name}}.{}{port}", config.server.domain.host())
}

fn limit_settings(config: &EdgeConfig) -> LimitSettings {
    let limits = &config.limits;
    let within = |count| Threshold {
        count,
        within: limits.ban_window,
    };
    LimitSettings {
        connections_per_address: match limits.connections_per_address {
            0 => 0,
            // One address must leave places to others.
            most => most.min(
                u32::try_from(connections(config) / 4)
                    .unwrap_or(u32::MAX)
                    .max(1),
            ),
        },
        requests_per_second: limits.requests_per_second,
        request_burst: limits.request_burst,
        refusals: within(limits.refusals_before_ban),
        proofs: within(limits.proofs_before_ban),
        logins: within(limits.logins_before_ban),
        handshakes: within(limits.handshakes_before_ban),
        ban: limits.ban,
        addresses: limits.addresses as usize,
        trusted: config.doors.trusted_proxies.clone(),
        trusted_factor: limits.trusted_factor,
    }
}

fn admission_settings(config: &EdgeConfig) -> AdmissionSettings {
    let admission = &config.admission;
    let policy = Policy {
        pin: match admission.pin {
            config::PinPolicy::Enrol => PinPolicy::Enrol,
            config::PinPolicy::EveryStart => PinPolicy::EveryStart,
            config::PinPolicy::Off => PinPolicy::Off,
        },
        keys: match admission.keys {
            config::KeyPolicy::Enrolled => KeyPolicy::Enrolled,
            config::KeyPolicy::Listed => {
                KeyPolicy::Listed(admission.allowed_keys.iter().copied().collect())
            }
        },
        max_agents: admission.max_agents as usize,
    };
    let per_address = config.limits.pins_before_ban;
    let pin_limits = PinLimits {
        per_address,
        ..PinLimits::default()
    };
    AdmissionSettings { policy, pin_limits }
}

fn rules(config: &EdgeConfig, now: Instant) -> Rules {
    let named = config.rules.iter().filter_map(|rule| {
        let name = rule.name.clone()?;
        Some((name, rule.spec.clone()))
    });
    let others = config.rules.iter().find(|rule| rule.name.is_none());
    let others = others.map(|rule| rule.spec.clone());
    Rules::new(named, others, config.agents.clone(), now)
}

fn registry_rules(config: &EdgeConfig, rules: Arc<Rules>) -> RegistryRules {
    let exclusive = |route: &Route| match &route.target {
        Target::Tunnel(name) if route.options.exclusive => Some(name.clone()),
        _ => None,
    };
    RegistryRules {
        grace: config.link.grace,
        max_tunnels: config.link.max_tunnels as usize,
        exclusive: config
            .routes
            .iter()
            .filter_map(|route| exclusive(&route.route))
            .collect::<HashSet<_>>(),
        rules,
    }
}

fn balancers(config: &EdgeConfig) -> Balancers {
    Balancers::new(config.doors.proxy_protocol.clone())
}

fn link_settings(
    config: &EdgeConfig,
    (url_pattern, reached): (&str, &Reached),
    workers: usize,
) -> LinkSettings {
    LinkSettings {
        url_pattern: url_pattern.to_owned(),
        doors: reached.doors.clone(),
        heartbeat: config.link.heartbeat,
        dead_after: config.link.dead,
        idle_channels: config.link.idle_channels,
        max_channels: config.link.max_channels,
        workers,
    }
}

fn http_settings(config: &EdgeConfig, at: &At) -> HttpSettings {
    let told = config.server.url.as_ref().and_then(|url| url.https_port());
    let https = at.https.filter(|_| config.doors.http_to_https);
    let limits = &config.limits;
    let defaults = HttpSettings::default();
    HttpSettings {
        head: adit_http1::Limits {
            head: limits.head_bytes as usize,
            ..defaults.head
        },
        head_time: limits.head,
        idle_time: limits.idle,
        body_rate: limits.body_rate,
        body_bytes: limits.body_bytes,
        answer_time: limits.answer,
        trusted: config.doors.trusted_proxies.clone(),
        https: https.map(|https| told.unwrap_or(https.port())),
        ..defaults
    }
}

/// The route table; a route's password is hashed here and not kept.
fn table(config: &EdgeConfig) -> Result<RouteTable, StartError> {
    let mut routes = Vec::with_capacity(config.routes.len());
    for given in &config.routes {
        let mut route = given.route.clone();
        if let Some(auth) = &given.auth {
            let salt = entropy::random().map_err(StartError::Worker)?;
            let hash = auth.hashed(salt).map_err(|_| StartError::Password)?;
            route.options.auth = Some(hash.into());
        }
        routes.push(route);
    }
    RouteTable::new(config.server.domain.clone(), routes).map_err(StartError::Routes)
}

fn connections(config: &EdgeConfig) -> usize {
    match config.limits.connections {
        0 => most_connections(descriptor_limit()),
        most => most as usize,
    }
}

/// Visitors for whom there are descriptors: each may need one more towards its
/// backend, and links, files and the other doors want to live too.
fn most_connections(descriptors: u64) -> usize {
    let others = (descriptors / 4).min(1024);
    usize::try_from((descriptors - others) / 2)
        .unwrap_or(usize::MAX)
        .clamp(1, Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_leave_descriptors_to_others() {
        assert_eq!(most_connections(1024), 384);
        assert_eq!(most_connections(20_000), 9488);
        assert_eq!(most_connections(0), 1);
        assert_eq!(most_connections(u64::MAX), Semaphore::MAX_PERMITS);
    }
}
