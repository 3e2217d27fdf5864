//! What the edge's owner says about tunnels.

use adit_agent::AgentEvent;
use adit_testkit::curl;
use adit_testkit::python::Origin;
use adit_testkit::wait::until_true;
use adit_testkit::world::{AgentPlan, World};

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
    assert_eq!(
        first.ended().unwrap_err().code(),
        adit_model::Code::SUPERSEDED
    );
}
