//! The owner's controls at every kind of door: each test is a row of a table,
//! and each door is a column.

mod bulk;
mod stage;

use adit_testkit::wait::{until, until_true};

use self::bulk::{LEAST, RATE, Way};
use self::stage::{Door, Guest, Identities, ONE, Stage, TWO, Visit};

/// One rule for every tunnel, each counted on its own.
fn every(rule: &str) -> Stage {
    let tables = format!("[[tunnel]]\nname = \"*\"\n{rule}\n");
    Stage::new(&tables, &Identities::new())
}

#[expect(clippy::panic, reason = "a helper of tests")]
/// That a visitor is turned away, and counted with this reason.
fn turned_away(stage: &Stage, (door, visit): (Door, impl FnOnce() -> Visit), reason: &str) {
    let before = stage.refused(reason);
    let Visit::Out(status) = visit() else {
        panic!("{door:?}: came in, and should have been turned away ({reason})");
    };
    let counted = stage.refused(reason) - before;
    // A visitor says its datagram until it knows.
    let right = counted == 1 || (door == Door::Udp && counted > 1);
    assert!(right, "{door:?}: counted {counted} times for {reason}");
    let wanted = match (door, reason) {
        (Door::Http | Door::Https, "address" | "not_guest") => Some(403),
        (Door::Http | Door::Https, "full") => Some(503),
        (Door::Http | Door::Https, _) => Some(429),
        _ => None,
    };
    assert_eq!(status, wanted, "{door:?}: {reason}");
}

fn comes_in(stage: &Stage, door: Door, from: std::net::IpAddr) -> Guest {
    stage.enter(door, from).inside(&format!("{door:?} {from}"))
}

/// That there is room for another when somebody has left.
fn has_room_again(stage: &Stage, door: Door) {
    until_true(&format!("{door:?} has room again"), || {
        stage.enter(door, ONE).is_in()
    });
}

#[test]
fn allow_lets_in_who_is_listed_alone() {
    let stage = every("allow = [\"127.0.0.2\"]");
    for door in Door::ALL {
        drop(comes_in(&stage, door, TWO));
        turned_away(&stage, (door, || stage.enter(door, ONE)), "address");
    }
}

#[test]
fn deny_is_stronger_than_allow() {
    let stage = every("allow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.2/31\"]");
    for door in Door::ALL {
        drop(comes_in(&stage, door, ONE));
        turned_away(&stage, (door, || stage.enter(door, TWO)), "address");
    }
}

#[test]
fn visitors_of_a_tunnel_are_counted_in_all() {
    let stage = every("connections = 2");
    for door in Door::ALL {
        let _first = comes_in(&stage, door, ONE);
        let second = comes_in(&stage, door, TWO);
        turned_away(&stage, (door, || stage.enter(door, TWO)), "full");
        drop(second);
        has_room_again(&stage, door);
    }
}

#[test]
fn visitors_of_an_address_are_counted_apart() {
    let stage = every("connections_per_address = 1");
    for door in Door::ALL {
        let first = comes_in(&stage, door, ONE);
        turned_away(&stage, (door, || stage.enter(door, ONE)), "address_full");
        drop(comes_in(&stage, door, TWO));
        drop(first);
        has_room_again(&stage, door);
    }
}

#[test]
fn new_visitors_come_at_the_owners_rate() {
    let stage = every("connections_per_second = 1");
    for door in Door::ALL {
        let before = stage.refused("too_fast");
        until(&format!("{door:?} is asked too often"), || {
            let visit = stage.enter(door, ONE);
            (!visit.is_in()).then_some(())
        });
        assert!(stage.refused("too_fast") > before, "{door:?}");
        has_room_again(&stage, door);
    }
}

#[test]
fn a_tunnel_is_open_for_guests_alone() {
    let stage = every("guests_only = true");
    for door in Door::ALL {
        turned_away(&stage, (door, || stage.enter(door, TWO)), "not_guest");
        stage.let_in(door, TWO);
        drop(comes_in(&stage, door, TWO));
        turned_away(&stage, (door, || stage.enter(door, ONE)), "not_guest");
    }
}

/// The edge's own limit, whatever tunnels and doors its visitors choose.
#[test]
fn visitors_of_the_edge_are_counted_across_all_doors() {
    let stage = Stage::new("[limits]\nconnections = 4\n", &Identities::new());
    let from = |last: u8| std::net::IpAddr::from([127, 0, 0, last]);
    let mut held: Vec<_> = (3..7)
        .map(|n| comes_in(&stage, Door::Tcp, from(n)))
        .collect();
    for door in Door::ALL {
        let before = stage.limited("full");
        assert!(!stage.enter(door, TWO).is_in(), "{door:?}");
        // A flow is counted with the datagrams that were dropped.
        let counted = stage.limited("full") - before;
        assert_eq!(counted, u64::from(door != Door::Udp), "{door:?}");
    }
    held.pop();
    for door in Door::ALL {
        has_room_again(&stage, door);
        until_true("the place is free", || stage.enter(Door::Tcp, TWO).is_in());
    }
}

#[test]
fn an_address_has_so_many_connections_at_any_door() {
    let limits = "[limits]\nconnections_per_address = 2\n";
    let stage = Stage::with("flows_per_address = 2\n", limits, &Identities::new());
    for door in Door::ALL {
        let held = [comes_in(&stage, door, TWO), comes_in(&stage, door, TWO)];
        let before = stage.limited("connections");
        let is_in = stage.enter(door, TWO).is_in();
        // An agent's streams are channels of its link, which do not count.
        assert_eq!(is_in, door == Door::Private, "{door:?}");
        let counted = stage.limited("connections") - before;
        let is_counted = !matches!(door, Door::Private | Door::Udp);
        assert_eq!(counted, u64::from(is_counted), "{door:?}");
        drop(comes_in(&stage, door, ONE));
        drop(held);
        until_true(&format!("{door:?} has room again"), || {
            stage.enter(door, TWO).is_in()
        });
        until_true("nobody is left", || {
            stage.tunnel(door, "visitors_open") == 0
        });
    }
}

/// The rule for an agent counts the visitors of all its tunnels together.
#[test]
fn visitors_of_an_agent_are_counted_across_its_tunnels() {
    let identities = Identities::new();
    let key = identities.keys[0];
    let tables = format!("[[agent]]\nkey = \"{key}\"\nconnections = 1\n");
    let stage = Stage::new(&tables, &identities);
    for (at, door) in Door::ALL.into_iter().enumerate() {
        let next = Door::ALL[(at + 1) % Door::ALL.len()];
        let guest = until(&format!("{door:?} has room"), || {
            match stage.enter(door, ONE) {
                Visit::In(guest) => Some(guest),
                Visit::Out(_) => None,
            }
        });
        for other in [door, next] {
            let before = stage.refused("full");
            assert!(
                !stage.enter(other, TWO).is_in(),
                "{other:?} beside {door:?}"
            );
            assert!(stage.refused("full") > before, "{other:?} beside {door:?}");
        }
        drop(guest);
    }
}

/// What an agent reaches by `adit forward` counts under its own rule too.
#[test]
fn an_agents_own_streams_to_private_tunnels_are_counted() {
    let identities = Identities::new();
    let key = identities.keys[1];
    let tables =
        format!("[[agent]]\nkey = \"{key}\"\nconnections = 1\nbytes_per_second = {RATE}\n");
    let stage = Stage::new(&tables, &identities);
    let door = Door::Private;
    let first = comes_in(&stage, door, ONE);
    turned_away(&stage, (door, || stage.enter(door, ONE)), "full");
    let _other = comes_in(&stage, door, TWO);
    drop(first);
    has_room_again(&stage, door);
    for way in Way::BOTH {
        until_true("the other stream is over", || {
            stage.world.metric("adit_private_streams_open") < 2.0
        });
        let took = bulk::time_alone(&stage, door, way);
        assert!(took >= LEAST, "{way:?}: {took:?}");
    }
}

#[test]
fn bytes_go_at_the_rate_of_their_tunnel() {
    let stage = every(&format!("bytes_per_second = {RATE}"));
    std::thread::scope(|scope| {
        for way in Way::BOTH {
            for door in Door::ALL.into_iter().filter(|door| *door != Door::Udp) {
                let stage = &stage;
                scope.spawn(move || {
                    let took = bulk::time(stage, door, way);
                    assert!(took >= LEAST, "{door:?} {way:?}: {took:?}");
                });
            }
        }
    });
    for way in Way::BOTH {
        bulk::flood(&stage, way);
    }
}

#[test]
fn bytes_go_at_the_rate_of_their_agent() {
    let identities = Identities::new();
    let key = identities.keys[0];
    let tables = format!("[[agent]]\nkey = \"{key}\"\nbytes_per_second = {RATE}\n");
    let stage = Stage::new(&tables, &identities);
    for way in Way::BOTH {
        for door in Door::ALL.into_iter().filter(|door| *door != Door::Udp) {
            let took = bulk::time(&stage, door, way);
            assert!(took >= LEAST, "{door:?} {way:?}: {took:?}");
        }
        bulk::flood(&stage, way);
    }
}

/// Without a rule the same takes less time, so that the rows above say
/// something.
#[test]
fn without_a_rule_nobody_waits() {
    let stage = Stage::new("", &Identities::new());
    for door in Door::ALL.into_iter().filter(|door| *door != Door::Udp) {
        for way in Way::BOTH {
            until_true(&format!("{door:?} {way:?} is fast"), || {
                bulk::time(&stage, door, way) < LEAST
            });
        }
    }
}

#[test]
fn each_tunnels_visitors_and_bytes_are_counted() {
    let stage = Stage::new("", &Identities::new());
    for door in Door::ALL {
        let counter = |metric: &str| stage.tunnel(door, metric);
        let guest = comes_in(&stage, door, ONE);
        assert_eq!(counter("agents"), 1, "{door:?}");
        assert_eq!(counter("visitors_open"), 1, "{door:?}");
        drop(guest);
        until_true(&format!("{door:?} is empty"), || {
            counter("visitors_open") == 0
        });
        assert_eq!(counter("visitors_total"), 1, "{door:?}");
        let least = if door == Door::Udp { 1 } else { 6 };
        until_true(&format!("{door:?}: bytes are counted"), || {
            counter("bytes_total=out") >= least
        });
        if door != Door::Udp {
            let before = (counter("bytes_total=in"), counter("bytes_total=out"));
            bulk::time(&stage, door, Way::Up);
            bulk::time(&stage, door, Way::Down);
            until_true(&format!("{door:?}: much is counted"), || {
                counter("bytes_total=in") - before.0 >= bulk::ALL
                    && counter("bytes_total=out") - before.1 >= bulk::ALL
            });
        }
    }
}

#[test]
fn what_a_service_fails_is_counted_for_its_tunnel() {
    let stage = Stage::before_nobody();
    for door in Door::ALL {
        assert!(!stage.enter(door, ONE).is_in(), "{door:?}");
        until_true(&format!("{door:?}: the failure is counted"), || {
            stage.tunnel(door, "failures_total") > 0 && stage.tunnel(door, "visitors_open") == 0
        });
    }
}
