use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use adit_link::workers::Workers;
use tokio::sync::Semaphore;

use super::*;
use crate::announced::Balancers;
use crate::limits::{LimitSettings, Limits};
use crate::metrics::{Door, Metrics};
use crate::registry::{Registry, RegistryRules};
use crate::rules::Rules;

struct World {
    ports: Arc<Ports>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    _workers: Workers,
}

/// Ports that were free a moment ago, below those that the system gives out
/// itself; each call has a range of its own.
fn free(count: usize) -> Vec<NonZeroU16> {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let of_process = u16::try_from(std::process::id() % 100).unwrap() * 100;
    let first = 20_000 + of_process + 10 * CALLS.fetch_add(1, Ordering::Relaxed);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let found: Vec<_> = (first..32_000).filter(is_free).take(count).collect();
    assert_eq!(found.len(), count, "no free ports");
    found.into_iter().filter_map(NonZeroU16::new).collect()
}

fn world(ranges: &[NonZeroU16]) -> World {
    let workers = Workers::start("test", 2).unwrap();
    let metrics = Arc::new(Metrics::new());
    let tasks = Tasks::new();
    let rules = Arc::new(Rules::new([], None, Vec::new(), Instant::now()));
    let registry = RegistryRules {
        grace: Duration::from_secs(30),
        max_tunnels: 10,
        exclusive: std::collections::HashSet::new(),
        rules: Arc::clone(&rules),
    };
    let now = Instant::now();
    let door = TcpDoor {
        registry: Registry::new(registry),
        rules,
        limits: Limits::new(LimitSettings::default(), Arc::clone(&metrics), now),
        metrics: Arc::clone(&metrics),
        places: Arc::new(Semaphore::new(10)),
        balancers: Balancers::default(),
        log: None,
        tasks: tasks.clone(),
    };
    let opener = Opener {
        to: Leads::Tcp(Arc::new(door)),
        counted: Counted {
            door: Door::Tcp,
            metrics: Arc::clone(&metrics),
            seldom: Arc::default(),
        },
        workers: workers.handles().to_vec(),
        doors: tasks.clone(),
        streams: tasks.clone(),
    };
    let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    let settings = PortSettings {
        bind: Ipv4Addr::LOCALHOST.into(),
        ranges: PortRanges::parse(&ranges.join(",")).unwrap(),
        tls: None,
        host: "edge.test".into(),
    };
    World {
        ports: Ports::new(settings, opener),
        metrics,
        tasks,
        _workers: workers,
    }
}

fn name(text: &str) -> TunnelName {
    TunnelName::parse(text).unwrap()
}

fn answers(port: NonZeroU16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port.get())).is_ok()
}

/// A closed port is free as soon as its workers have dropped their listeners.
fn until_free(port: NonZeroU16) {
    let start = Instant::now();
    while TcpListener::bind((Ipv4Addr::LOCALHOST, port.get())).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "{port} is open");
        std::thread::yield_now();
    }
}

#[test]
fn a_name_has_one_port_and_a_port_one_name() {
    let all = free(2);
    let world = world(&all);
    let ports = &world.ports;
    let (ssh, db) = (name("ssh"), name("db"));
    assert_eq!(
        ports.claim(&ssh, Some(all[0]), None, |_| false).unwrap(),
        all[0]
    );
    assert!(answers(all[0]));
    assert!(!answers(all[1]), "only what is asked for is open");
    // The next agent behind the name, with and without a wish.
    assert_eq!(ports.claim(&ssh, None, None, |_| true).unwrap(), all[0]);
    assert_eq!(
        ports.claim(&ssh, Some(all[0]), None, |_| true).unwrap(),
        all[0]
    );
    let other = ports.claim(&ssh, Some(all[1]), None, |_| true).unwrap_err();
    assert!(matches!(other, PortRefusal::OtherPort(port) if port == all[0]));
    let taken = ports.claim(&db, Some(all[0]), None, |_| false).unwrap_err();
    assert!(matches!(taken, PortRefusal::Taken(_)), "{taken}");
    // Who names none gets what is left, and then there is none.
    assert_eq!(ports.claim(&db, None, None, |_| false).unwrap(), all[1]);
    let none = ports
        .claim(&name("web"), None, None, |_| false)
        .unwrap_err();
    assert!(matches!(none, PortRefusal::NoneFree(_)), "{none}");
    assert_eq!(world.metrics.tcp.ports.get(), 2);
    assert_eq!(ports.url(all[1]), format!("tcp://edge.test:{}", all[1]));
    world.tasks.stopping().cancel();
}

#[test]
fn a_port_closes_with_its_name() {
    let all = free(1);
    let world = world(&all);
    let ssh = name("ssh");
    world.ports.claim(&ssh, None, None, |_| false).unwrap();
    // Not while the tunnel is on its way into the registry.
    world.ports.sweep(|_| false);
    assert!(answers(all[0]));
    world.ports.settle(&ssh, true, |_| true);
    world.ports.sweep(|_| true);
    assert!(answers(all[0]));
    world.ports.sweep(|_| false);
    until_free(all[0]);
    assert_eq!(world.metrics.tcp.ports.get(), 0);
    // A tunnel that the registry refused leaves no port behind.
    world.ports.claim(&ssh, None, None, |_| false).unwrap();
    world.ports.settle(&ssh, false, |_| false);
    until_free(all[0]);
}

#[test]
fn a_name_that_nobody_serves_may_change_its_port() {
    let all = free(2);
    let world = world(&all);
    let ssh = name("ssh");
    world
        .ports
        .claim(&ssh, Some(all[0]), None, |_| false)
        .unwrap();
    world.ports.settle(&ssh, true, |_| true);
    // Whoever is refused the name has moved nothing.
    world
        .ports
        .claim(&ssh, Some(all[1]), None, |_| false)
        .unwrap();
    assert!(answers(all[0]) && answers(all[1]));
    let other = world.ports.claim(&ssh, Some(all[0]), None, |_| false);
    assert!(matches!(other, Err(PortRefusal::OtherPort(_))), "{other:?}");
    world.ports.settle(&ssh, false, |_| true);
    until_free(all[1]);
    assert!(answers(all[0]));
    let taken = world
        .ports
        .claim(&name("db"), Some(all[0]), None, |_| false);
    assert!(matches!(taken, Err(PortRefusal::Taken(_))), "{taken:?}");
    world
        .ports
        .claim(&ssh, Some(all[1]), None, |_| false)
        .unwrap();
    world.ports.settle(&ssh, true, |_| true);
    assert!(answers(all[1]));
    until_free(all[0]);
    let own = PortRanges::parse(&all[0].to_string()).unwrap();
    let given = world.ports.claim(&ssh, None, Some(&own), |_| true);
    assert!(
        matches!(given, Err(PortRefusal::NotGiven { .. })),
        "{given:?}"
    );
}

#[test]
fn the_name_keeps_its_port_where_it_can() {
    let all = free(3);
    let first = world(&all)
        .ports
        .claim(&name("db"), None, None, |_| false)
        .unwrap();
    until_free(first);
    let again = world(&all)
        .ports
        .claim(&name("db"), None, None, |_| false)
        .unwrap();
    assert_eq!(first, again);
}

#[test]
fn ports_of_others_are_told_apart() {
    let all = free(2);
    let world = world(&all);
    let ssh = name("ssh");
    let theirs = TcpListener::bind((Ipv4Addr::LOCALHOST, all[0].get())).unwrap();
    let refused = world
        .ports
        .claim(&ssh, Some(all[0]), None, |_| false)
        .unwrap_err();
    assert!(matches!(refused, PortRefusal::System(..)), "{refused}");
    assert_eq!(refused.code(), Code::PORT_REFUSED);
    // Without a wish it goes round them.
    assert_eq!(
        world.ports.claim(&ssh, None, None, |_| false).unwrap(),
        all[1]
    );
    drop(theirs);
    let outside = NonZeroU16::new(1).unwrap();
    let refused = world
        .ports
        .claim(&name("db"), Some(outside), None, |_| false);
    let refused = refused.unwrap_err();
    assert!(
        refused.to_string().contains("port 1 is not among"),
        "{refused}"
    );
    let none = self::world(&[])
        .ports
        .claim(&ssh, None, None, |_| false)
        .unwrap_err();
    assert_eq!(none.code(), Code::TUNNEL_KIND);
}

/// Others may not have noticed yet that it is closed.
#[test]
fn a_closed_port_may_be_had_again_at_once() {
    let all = free(1);
    let world = world(&all);
    for name in ["ssh", "db", "ssh", "web"].map(name) {
        world
            .ports
            .claim(&name, Some(all[0]), None, |_| false)
            .unwrap();
        world.ports.settle(&name, true, |_| true);
        assert!(answers(all[0]));
        world.ports.closed(&name, |_| false);
    }
    until_free(all[0]);
    // What another program has is still told apart.
    let _theirs = TcpListener::bind((Ipv4Addr::LOCALHOST, all[0].get())).unwrap();
    let refused = world
        .ports
        .claim(&name("ssh"), Some(all[0]), None, |_| false);
    assert!(
        matches!(refused, Err(PortRefusal::System(..))),
        "{refused:?}"
    );
}
