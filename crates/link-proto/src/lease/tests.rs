use super::*;

const GRACE: Duration = Duration::from_secs(60);

fn books() -> (Leases, Instant, TunnelName) {
    let limits = LeaseLimits {
        grace: GRACE,
        ..LeaseLimits::default()
    };
    let name = TunnelName::parse("app").unwrap();
    (Leases::new(limits), Instant::now(), name)
}

fn holder(link: u64, identity: u8, instance: u8) -> Holder {
    Holder {
        link: LinkId(link),
        identity: PublicKey([identity; 32]),
        instance: InstanceId([instance; 16]),
        owner: Owner::Shared,
    }
}

fn links(leases: &Leases, name: &TunnelName) -> Vec<u64> {
    leases.holders(name).map(|(h, _)| h.link.0).collect()
}

#[test]
fn the_same_process_takes_its_name_over_at_once() {
    let (mut leases, now, app) = books();
    for exclusive in [false, true] {
        let base = if exclusive { 10 } else { 0 };
        let first = leases
            .claim(&app, holder(base, 1, 1), exclusive, now)
            .unwrap();
        let again = leases
            .claim(&app, holder(base + 1, 1, 1), exclusive, now)
            .unwrap();
        assert_eq!(again.fenced, [LinkId(base)]);
        assert!(again.generation > first.generation);
        assert_eq!(links(&leases, &app), [base + 1]);
        assert!(!leases.is_current(&app, LinkId(base), first.generation));
        assert!(leases.is_current(&app, LinkId(base + 1), again.generation));
        // The fenced link's end changes nothing.
        assert!(leases.release(LinkId(base), now).is_empty());
        assert!(!leases.close(LinkId(base), &app, now));
        assert_eq!(links(&leases, &app), [base + 1]);
        assert!(leases.close(LinkId(base + 1), &app, now));
    }
}

#[test]
fn agents_of_one_owner_pool_unless_one_is_exclusive() {
    let (mut leases, now, app) = books();
    leases.claim(&app, holder(1, 1, 1), false, now).unwrap();
    leases.claim(&app, holder(2, 2, 2), false, now).unwrap();
    leases.claim(&app, holder(3, 1, 9), false, now).unwrap();
    assert_eq!(links(&leases, &app), [1, 2, 3]);
    let alone = leases.claim(&app, holder(4, 4, 4), true, now);
    assert_eq!(alone, Err(ClaimRefused::Exclusive));
    assert_eq!(links(&leases, &app), [1, 2, 3]);
    leases.release(LinkId(1), now);
    leases.release(LinkId(2), now);
    assert_eq!(links(&leases, &app), [3]);
    // The last one may make itself exclusive.
    let claim = leases.claim(&app, holder(3, 1, 9), true, now).unwrap();
    assert_eq!(claim.fenced, []);
    let other = leases.claim(&app, holder(5, 2, 5), false, now);
    assert_eq!(other, Err(ClaimRefused::Exclusive));
    // A newer process of the same agent: the older may be a ghost.
    let newer = leases.claim(&app, holder(6, 1, 6), false, now).unwrap();
    assert_eq!(newer.fenced, [LinkId(3)]);
    assert_eq!(links(&leases, &app), [6]);
    assert!(leases.release(LinkId(3), now).is_empty());
    assert_eq!(links(&leases, &app), [6]);
}

#[test]
fn a_name_waits_for_its_owner_and_then_is_free() {
    let (mut leases, now, app) = books();
    let stranger = Holder {
        owner: Owner::Account(7),
        ..holder(9, 9, 9)
    };
    leases.claim(&app, holder(1, 1, 1), false, now).unwrap();
    let taken = leases.claim(&app, stranger, false, now);
    assert_eq!(taken, Err(ClaimRefused::OtherOwner));
    leases.release(LinkId(1), now);
    let just_before = now + GRACE - Duration::from_nanos(1);
    let taken = leases.claim(&app, stranger, false, just_before);
    assert_eq!(taken, Err(ClaimRefused::OtherOwner));
    leases
        .claim(&app, holder(2, 2, 2), false, just_before)
        .unwrap();
    leases.release(LinkId(2), now + GRACE);
    assert!(leases.is_taken(&app));
    leases
        .claim(&app, stranger, false, now + GRACE + GRACE)
        .unwrap();
    assert_eq!(links(&leases, &app), [9]);
}

#[test]
fn an_exclusive_name_waits_for_its_identity() {
    let (mut leases, now, app) = books();
    leases.claim(&app, holder(1, 1, 1), true, now).unwrap();
    leases.release(LinkId(1), now);
    let other = leases.claim(&app, holder(2, 2, 2), true, now);
    assert_eq!(other, Err(ClaimRefused::Exclusive));
    leases.claim(&app, holder(3, 1, 3), true, now).unwrap();
    leases.release(LinkId(3), now);
    leases
        .claim(&app, holder(4, 2, 2), true, now + GRACE)
        .unwrap();
}

#[test]
fn a_name_given_up_is_free_at_once() {
    let (mut leases, now, app) = books();
    leases.claim(&app, holder(1, 1, 1), true, now).unwrap();
    assert!(leases.close(LinkId(1), &app, now));
    assert!(leases.is_empty());
    let stranger = Holder {
        owner: Owner::Account(7),
        ..holder(9, 9, 9)
    };
    leases.claim(&app, stranger, false, now).unwrap();
}

#[test]
fn names_and_holders_are_bounded() {
    let limits = LeaseLimits {
        grace: GRACE,
        names: 2,
        holders: 2,
    };
    let (mut leases, now) = (Leases::new(limits), Instant::now());
    let name = |text| TunnelName::parse(text).unwrap();
    leases
        .claim(&name("a"), holder(1, 1, 1), false, now)
        .unwrap();
    leases
        .claim(&name("b"), holder(1, 1, 1), false, now)
        .unwrap();
    let third = leases.claim(&name("c"), holder(1, 1, 1), false, now);
    assert_eq!(third, Err(ClaimRefused::TooMany));
    leases
        .claim(&name("a"), holder(2, 2, 2), false, now)
        .unwrap();
    let third = leases.claim(&name("a"), holder(3, 3, 3), false, now);
    assert_eq!(third, Err(ClaimRefused::TooMany));
    // Waiting names count, until their time is over.
    leases.release(LinkId(1), now);
    let third = leases.claim(&name("c"), holder(3, 3, 3), false, now);
    assert_eq!(third, Err(ClaimRefused::TooMany));
    leases
        .claim(&name("c"), holder(3, 3, 3), false, now + GRACE)
        .unwrap();
    assert_eq!(leases.len(), 2);
}
