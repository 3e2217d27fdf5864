use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nets(text: &str) -> Vec<IpNet> {
    text.split(' ').map(|net| net.parse().unwrap()).collect()
}

fn rule(spec: RuleSpec) -> (Arc<Rule>, Instant) {
    let at = Instant::now();
    (Arc::new(Rule::new(spec, at)), at)
}

#[test]
fn deny_is_stronger_than_allow() {
    let (rule, at) = rule(RuleSpec {
        allow: nets("10.0.0.0/8 2001:db8::/32"),
        deny: nets("10.0.0.66/32"),
        ..RuleSpec::default()
    });
    for allowed in ["10.0.0.65", "2001:db8::1", "::ffff:10.1.1.1"] {
        assert!(rule.enter(ip(allowed), at).is_ok(), "{allowed}");
    }
    for refused in ["10.0.0.66", "::ffff:10.0.0.66", "11.0.0.1", "2001:db9::1"] {
        let why = rule.enter(ip(refused), at).unwrap_err();
        assert_eq!(why, Refused::Address, "{refused}");
    }
}

#[test]
fn visitors_are_counted_until_they_leave() {
    let (rule, at) = rule(RuleSpec {
        connections: 3,
        connections_per_address: 2,
        ..RuleSpec::default()
    });
    let enter = |text: &str| rule.enter(ip(text), at);
    let first = enter("192.0.2.1").unwrap();
    let _second = enter("192.0.2.1").unwrap();
    assert_eq!(enter("192.0.2.1").unwrap_err(), Refused::AddressFull);
    let _third = enter("192.0.2.2").unwrap();
    assert_eq!(enter("192.0.2.3").unwrap_err(), Refused::Full);
    drop(first);
    let again = enter("192.0.2.1").unwrap();
    drop((again, _second, _third));
    assert_eq!(rule.now().visitors, 0);
    assert!(rule.now().of_address.is_empty());
}

#[test]
fn new_visitors_come_at_a_rate() {
    let (rule, at) = rule(RuleSpec {
        connections_per_second: 10,
        ..RuleSpec::default()
    });
    let enter = |millis| rule.enter(ip("192.0.2.1"), at + Duration::from_millis(millis));
    assert_eq!((0..20).filter(|_| enter(0).is_ok()).count(), 10);
    assert_eq!(enter(50).unwrap_err(), Refused::TooFast);
    assert!(enter(100).is_ok());
    assert_eq!((0..20).filter(|_| enter(5_000).is_ok()).count(), 10);
}

#[test]
fn guests_come_in_for_a_while() {
    let (rule, at) = rule(RuleSpec {
        guests_only: true,
        ..RuleSpec::default()
    });
    let (guest, minute) = (ip("192.0.2.1"), Duration::from_secs(60));
    assert_eq!(rule.enter(guest, at).unwrap_err(), Refused::NotGuest);
    assert!(rule.let_in(guest, minute, at));
    assert!(rule.enter(guest, at).is_ok());
    assert!(rule.enter(ip("192.0.2.2"), at).is_err());
    assert!(rule.enter(guest, at + minute).is_err());
    assert!(rule.let_in(guest, minute, at + minute));
    assert!(rule.shut_out(guest, at + minute));
    assert!(!rule.shut_out(guest, at + minute));
    assert!(rule.enter(guest, at + minute).is_err());
}

#[test]
fn guests_are_bounded() {
    let (rule, at) = rule(RuleSpec::default());
    let minute = Duration::from_secs(60);
    for n in 0..u32::try_from(MAX_GUESTS).unwrap() {
        assert!(rule.let_in(std::net::Ipv4Addr::from_bits(n).into(), minute, at));
    }
    assert!(!rule.let_in(ip("192.0.2.1"), minute, at));
    assert!(rule.let_in(ip("0.0.0.1"), minute, at), "a known one");
    assert!(rule.let_in(ip("192.0.2.1"), minute, at + minute));
}

#[test]
fn each_name_has_a_rule_of_its_own() {
    let (at, name) = (Instant::now(), |text: &str| {
        TunnelName::parse(text).unwrap()
    });
    let one = |connections| RuleSpec {
        connections,
        ..RuleSpec::default()
    };
    let rules = Rules::new([(name("db"), one(1))], Some(one(2)), Vec::new(), at);
    assert_eq!(rules.of(&name("db"), at).unwrap().spec().connections, 1);
    let (app, web) = (rules.of(&name("app"), at), rules.of(&name("web"), at));
    let (app, web) = (app.unwrap(), web.unwrap());
    assert!(!Arc::ptr_eq(&app, &web));
    assert!(Arc::ptr_eq(&app, &rules.of(&name("app"), at).unwrap()));
    drop(web);
    let _third = rules.of(&name("third"), at);
    assert_eq!(rules.made.lock().unwrap().len(), 2, "web is forgotten");
    let none = Rules::new([], None, Vec::new(), at);
    assert!(none.of(&name("app"), at).is_none());
}
