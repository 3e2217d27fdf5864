use super::*;

fn limits(change: impl FnOnce(&mut LimitSettings)) -> (Arc<Limits>, Instant) {
    let mut settings = LimitSettings::default();
    change(&mut settings);
    let now = Instant::now();
    (Limits::new(settings, Arc::new(Metrics::new()), now), now)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn connections_are_counted_until_the_permit_goes() {
    let (limits, now) = limits(|s| s.connections_per_address = 2);
    let a = limits.connect(ip("192.0.2.1"), now).unwrap();
    let _b = limits.connect(ip("192.0.2.1"), now).unwrap();
    let refused = limits.connect(ip("192.0.2.1"), now).unwrap_err();
    assert_eq!(refused, Refusal::TooManyConnections);
    assert!(limits.connect(ip("192.0.2.2"), now).is_ok());
    drop(a);
    assert!(limits.connect(ip("192.0.2.1"), now).is_ok());
    let refused = &limits.metrics.limits.refused;
    assert_eq!(refused.of(LimitRefusal::Connections).get(), 1);
}

#[test]
fn requests_follow_the_rate_after_the_burst() {
    let (limits, start) = limits(|s| (s.requests_per_second, s.request_burst) = (10, 30));
    let passed = |at: Instant| {
        let mut passed = 0;
        while limits.request(ip("192.0.2.1"), at).is_ok() {
            passed += 1;
        }
        passed
    };
    assert_eq!(passed(start), 30);
    assert_eq!(passed(start + seconds(1)), 10);
    assert_eq!(passed(start + seconds(1000)), 30);
    let Err(Refusal::TooManyRequests { retry_after }) =
        limits.request(ip("192.0.2.1"), start + seconds(1000))
    else {
        panic!("the bucket is empty");
    };
    assert_eq!(retry_after, Duration::from_millis(100));
    let later = start + seconds(1000) + retry_after;
    assert!(limits.request(ip("192.0.2.1"), later).is_ok());
}

#[test]
fn a_permit_and_its_address_share_one_bucket() {
    let (limits, now) = limits(|s| s.requests_per_second = 4);
    let permit = limits.connect(ip("2001:db8::1"), now).unwrap();
    for _ in 0..2 {
        permit.request(now).unwrap();
        limits.request(ip("2001:db8::2"), now).unwrap();
    }
    assert!(permit.request(now).is_err());
    assert!(limits.request(ip("2001:db8::3"), now).is_err());
    assert!(limits.request(ip("2001:db8:0:1::1"), now).is_ok());
}

#[test]
fn nothing_is_limited_by_zero() {
    let (limits, now) = limits(|s| {
        (s.requests_per_second, s.connections_per_address) = (0, 0);
        s.proofs.count = 0;
    });
    let visitor = ip("192.0.2.1");
    let permits: Vec<_> = (0..5000).map(|_| limits.connect(visitor, now)).collect();
    assert!(permits.iter().all(Result::is_ok));
    assert!((0..5000).all(|_| limits.request(visitor, now).is_ok()));
    assert!((0..5000).all(|_| !limits.strike(visitor, Strike::Proof, now)));
}

#[test]
fn failed_proofs_ban_for_a_time_and_all_doors() {
    let (limits, now) = limits(|s| {
        s.proofs = Threshold {
            count: 5,
            within: seconds(60),
        };
        s.ban = seconds(600);
    });
    let visitor = ip("192.0.2.1");
    let permit = limits.connect(visitor, now).unwrap();
    for _ in 0..4 {
        assert!(!limits.strike(visitor, Strike::Proof, now));
    }
    assert!(limits.connect(visitor, now).is_ok());
    assert!(limits.strike(visitor, Strike::Proof, now));
    assert_eq!(limits.banned(visitor, now), Some(seconds(600)));
    let left = Refusal::Banned { left: seconds(599) };
    assert_eq!(limits.connect(visitor, now + seconds(1)).unwrap_err(), left);
    assert_eq!(limits.request(visitor, now + seconds(1)), Err(left));
    assert_eq!(permit.request(now + seconds(1)), Err(left));
    assert_eq!(limits.census(now).banned, 1);
    assert!(limits.connect(visitor, now + seconds(600)).is_ok());
    assert_eq!(limits.census(now + seconds(600)).banned, 0);
    assert_eq!(limits.metrics.limits.bans.get(), 1);
}

#[test]
fn failures_spread_over_time_do_not_ban() {
    let (limits, start) = limits(|s| {
        s.logins = Threshold {
            count: 3,
            within: seconds(60),
        };
    });
    let visitor = ip("192.0.2.1");
    for round in 0..20 {
        let at = start + seconds(round * 61);
        assert!(!limits.strike(visitor, Strike::Login, at));
        assert!(!limits.strike(visitor, Strike::Login, at));
    }
}

#[test]
fn going_on_above_the_limit_ends_in_a_ban() {
    let (limits, now) = limits(|s| {
        s.requests_per_second = 1;
        s.refusals.count = 10;
    });
    let visitor = ip("192.0.2.1");
    assert!(limits.request(visitor, now).is_ok());
    for _ in 0..10 {
        let refused = limits.request(visitor, now).unwrap_err();
        assert!(matches!(refused, Refusal::TooManyRequests { .. }));
    }
    let refused = limits.request(visitor, now).unwrap_err();
    assert!(matches!(refused, Refusal::Banned { .. }));
}

#[test]
fn loopback_and_trusted_proxies_are_limited_and_never_banned() {
    let (limits, now) = limits(|s| {
        s.requests_per_second = 2;
        s.trusted = vec!["10.0.0.0/8".parse().unwrap()];
        s.trusted_factor = 3;
        s.refusals.count = 1;
    });
    for (address, allowed) in [("127.0.0.9", 2), ("::1", 2), ("::ffff:10.1.2.3", 6)] {
        let address = ip(address);
        assert!((0..allowed).all(|_| limits.request(address, now).is_ok()));
        assert!((0..100).all(|_| limits.request(address, now).is_err()));
        assert!((0..100).all(|_| !limits.strike(address, Strike::Proof, now)));
        assert!(!limits.ban(address, seconds(60), now));
        assert_eq!(limits.banned(address, now), None);
        assert!(limits.request(address, now + seconds(9)).is_ok());
    }
    assert!(limits.ban(ip("192.0.2.1"), seconds(60), now));
    assert!(limits.banned(ip("192.0.2.1"), now).is_some());
}

#[test]
fn a_million_addresses_stay_within_the_bound() {
    let (limits, start) = limits(|s| s.addresses = 4096);
    let banned = ip("192.0.2.1");
    assert!(limits.ban(banned, seconds(3600), start));
    let _open = limits.connect(ip("192.0.2.2"), start).unwrap();
    for n in 0..1_000_000u32 {
        let address = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0A00_0000 + n));
        let now = start + Duration::from_micros(u64::from(n));
        limits.request(address, now).unwrap();
    }
    let census = limits.census(start + seconds(1));
    assert!(census.addresses <= 4096, "{census:?}");
    assert!(census.addresses > 4000, "{census:?}");
    let slots: usize = limits
        .shards
        .iter()
        .map(|s| s.lock().unwrap().capacity_in_memory())
        .sum();
    assert!(slots <= 2 * 4096, "{slots}");
    // What matters most was not washed away by the flood.
    assert!(limits.banned(banned, start + seconds(2)).is_some());
    let held = limits.lock(limits.shard_of(AddressKey::of(ip("192.0.2.2"))));
    let entry = held.peek(AddressKey::of(ip("192.0.2.2"))).unwrap();
    assert_eq!(entry.connections, 1);
}

#[test]
fn permits_survive_that_their_entry_is_given_away() {
    let (limits, now) = limits(|s| {
        s.addresses = 1;
        s.requests_per_second = 1;
    });
    let permits: Vec<_> = (0..1000u32)
        .map(|n| {
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(n + 1));
            limits.connect(address, now).unwrap()
        })
        .collect();
    for permit in &permits {
        let _ = permit.request(now);
    }
    drop(permits);
    let left: u32 = (0..SHARDS)
        .map(|shard| limits.lock(shard).connections())
        .sum();
    assert_eq!(left, 0);
}

#[test]
fn the_owner_bans_lists_and_lifts() {
    let (limits, now) = limits(|s| {
        s.proofs = Threshold {
            count: 2,
            within: seconds(60),
        };
        s.ban = seconds(600);
    });
    let (one, two) = (ip("192.0.2.1"), ip("2001:db8::1"));
    assert!(limits.ban(one, seconds(60), now));
    assert!(!limits.ban(ip("127.0.0.1"), seconds(60), now));
    limits.strike(two, Strike::Proof, now);
    assert!(limits.strike(two, Strike::Proof, now));
    let shown = |at, most| -> Vec<_> {
        let bans = limits.bans(at, most);
        let bans = bans.iter();
        bans.map(|(key, left)| (key.to_string(), left.as_secs()))
            .collect()
    };
    let (v4, v6) = ("192.0.2.1".to_owned(), "2001:db8::/64".to_owned());
    assert_eq!(shown(now, 10), [(v6.clone(), 600), (v4, 60)]);
    assert_eq!(shown(now, 1), [(v6.clone(), 600)]);
    assert_eq!(shown(now + seconds(60), 10), [(v6, 540)]);
    assert!(limits.lift(two, now));
    assert!(!limits.lift(two, now) && !limits.lift(ip("192.0.2.9"), now));
    assert!(limits.connect(two, now).is_ok());
    // What led to it is forgotten.
    assert!(!limits.strike(two, Strike::Proof, now));
    assert_eq!(limits.census(now).banned, 1);
}
