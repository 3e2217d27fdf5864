//! What the edge's owner says about tunnels.

use adit_agent::{AgentEvent, DataFolder};
use adit_model::Code;
use adit_testkit::curl;
use adit_testkit::python::Origin;
use adit_testkit::raw::{Socket, free_ports, origin};
use adit_testkit::wait::until_true;
use adit_testkit::world::{Agent, AgentPlan, World, tunnel};

fn status_under(rule: &str) -> u16 {
    let world = World::with(&format!("[[tunnel]]\nname = \"app\"\n{rule}\n"));
    let origin = Origin::start("echo", &["one"]);
    let _agent = world.agent("app", origin.address);
    let status = curl::get(world.http(), "http://app.test/name").status;
    if status != 200 {
        let refused: f64 = ["address", "not_guest", "full", "address_full", "too_fast"]
            .iter()
            .map(|r| world.metric(&format!("adit_tunnel_refusals_total{{reason=\"{r}\"}}")))
            .sum();
        assert!((refused - 1.0).abs() < f64::EPSILON, "{rule}: {refused}");
    }
    status
}

#[test]
fn who_may_visit_is_the_owners_word() {
    for (rule, status) in [
        ("", 200),
        ("allow = [\"127.0.0.0/8\"]", 200),
        ("allow = [\"192.0.2.0/24\"]", 403),
        ("deny = [\"127.0.0.1\"]", 403),
        ("allow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.0/30\"]", 403),
        ("guests_only = true", 403),
    ] {
        assert_eq!(status_under(rule), status, "{rule}");
    }
}

#[test]
fn new_requests_come_at_the_owners_rate() {
    let world = World::with("[[tunnel]]\nname = \"*\"\nconnections_per_second = 2\n");
    let origin = Origin::start("echo", &["one"]);
    let _agent = world.agent("app", origin.address);
    let get = || curl::get(world.http(), "http://app.test/name");
    let replies: Vec<_> = (0..6).map(|_| get()).collect();
    let refused = replies.iter().find(|reply| reply.status == 429);
    let refused = refused.expect("six at once are too many");
    assert_eq!(refused.header("retry-after"), Some("1"), "{refused:?}");
    until_true("requests are taken again", || get().status == 200);
}

#[test]
fn a_name_has_as_many_agents_as_its_owner_says() {
    let world = World::with("[[tunnel]]\nname = \"app\"\nmax_agents = 1\n");
    let origin = Origin::start("echo", &["one"]);
    let plan = AgentPlan::new(&world, "app", origin.address);
    let data = plan.settings.data.clone();
    let first = world.start_agent(plan);
    first.wait_live("app");
    let other = world.start_agent(AgentPlan::new(&world, "app", origin.address));
    let why = other.wait("a refusal", |event| match event {
        AgentEvent::TunnelRefused { text, .. } => Some(text.clone()),
        _ => None,
    });
    assert!(
        why.contains("as many agents as the edge's owner allows (1)"),
        "{why}"
    );
    other.stop().unwrap();
    // The same identity takes over.
    let mut plan = AgentPlan::new(&world, "app", origin.address);
    plan.settings.data = data;
    let again = world.start_agent(plan);
    again.wait_live("app");
    assert_eq!(first.ended().unwrap_err().code(), Code::SUPERSEDED);
}

/// The owner's table for one agent, and the others as they are without it.
#[test]
fn an_agent_has_the_ports_tunnels_and_visitors_that_its_owner_says() {
    let (ports, data) = (free_ports(2), tempfile::tempdir().unwrap());
    let folder = DataFolder::open(data.path()).unwrap();
    let key = folder.identity().unwrap().public();
    drop(folder);
    let doors = format!("tcp_ports = \"{}, {}\"\n", ports[0], ports[1]);
    let table = format!(
        "[[agent]]\nkey = \"{key}\"\ntcp_ports = \"{}\"\nmax_tunnels = 1\nconnections = 1\n",
        ports[1]
    );
    let world = World::with_doors(&doors, &table);
    let greet = origin(|mut socket: Socket| {
        socket.send("hello\n");
        socket.rest();
    });
    let plan = |name: &str, port| {
        let mut plan = AgentPlan::tcp(&world, name, greet, port);
        plan.settings.data = data.path().to_owned();
        plan
    };
    let refusal = |agent: &Agent| {
        agent.wait("a refusal", |event| match event {
            AgentEvent::TunnelRefused { code, text, .. } => Some((*code, text.clone())),
            _ => None,
        })
    };
    let wrong = world.start_agent(plan("one", Some(ports[0])));
    let (code, text) = refusal(&wrong);
    assert_eq!(code, Code::PORT_REFUSED.number);
    let ranges = format!("that the edge's owner gives this agent ({})", ports[1]);
    assert!(text.contains(&ranges), "{text}");
    wrong.stop().unwrap();
    let mut both = plan("one", None);
    let target = greet.to_string();
    both.settings.tunnels.push(tunnel("two", &target));
    let agent = world.start_agent(both);
    assert_eq!(agent.wait_live("one"), format!("tcp://test:{}", ports[1]));
    assert_eq!(refusal(&agent).0, Code::TOO_MANY_TUNNELS.number);
    let mut first = Socket::dial(([127, 0, 0, 1], ports[1]).into());
    first.until("\n");
    let second = Socket::dial(([127, 0, 0, 1], ports[1]).into()).rest();
    assert_eq!(second, (Vec::new(), false));
    // Another agent has what it asks for.
    let other = world.start_agent(AgentPlan::tcp(&world, "other", greet, Some(ports[0])));
    other.wait_live("other");
}
