//! Who may come in: tokens, revocation, a new secret, a forgotten edge.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::until_true;

use crate::lab::{Edge, Lab, Said};

fn target() -> String {
    let served = origin(|mut socket: Socket| {
        socket.head();
        socket.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    });
    served.to_string()
}

/// The keys of `adit agents list`.
fn keys(lab: &Lab, edge: &Edge) -> Vec<String> {
    let listed = edge.ask(lab, &["agents", "list", "--json"]).done();
    let parts = listed.split("\"key\":\"").skip(1);
    parts
        .map(|part| part.split('"').next().unwrap().to_owned())
        .collect()
}

#[test]
fn an_edge_for_one_agent_tells_a_second_one_so() {
    let lab = Lab::new();
    let edge = lab.edge("[admission]\nmax_agents = 1");
    let first = lab.agent(&edge, "first", &[&target(), "--name", "app"]);
    first.live("app");
    let second = lab.agent(&edge, "second", &[&target(), "--name", "other"]);
    let said = second.ended();
    said.refused(3, "ADIT-3010", &["as many agents"]);
    // Whom something else keeps out, too, hears nothing of it.
    let (join, pin) = (edge.join(&lab), edge.pin(&lab));
    let wrong = if pin == "22X3Y4" { "55Z6A7" } else { "22X3Y4" };
    let variables = [("ADIT_EDGE", join.as_str()), ("ADIT_PIN", wrong)];
    let third = lab.agent_with("third", &[&target()], &variables);
    third.ended().refused(3, "ADIT-3006", &["refused"]);
    // The one agent comes back at once, also before it is known to be gone.
    drop(first.process.kill());
    let again = lab.agent_with("first", &[&target(), "--name", "app"], &[]);
    again.live("app");
    assert_eq!(again.stop().0, Some(0));
    until_true("there is room again", || {
        edge.metric("adit_links_open") < 1.0
    });
    let second = lab.agent(&edge, "second", &[&target(), "--name", "other"]);
    second.live("other");
}

#[test]
fn a_token_admits_one_agent_and_no_second() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let made = edge.ask(
        &lab,
        &[
            "server", "token", "new", "--label", "laptop", "--tunnel", "app",
        ],
    );
    let token = made.done().trim().to_owned();
    let first = lab.agent_with(
        "first",
        &[&target(), "--name", "app"],
        &[("ADIT_EDGE", &token)],
    );
    first.live("app");
    assert_eq!(edge.get("app.test", "/").0, 200);
    let second = lab.agent_with(
        "second",
        &[&target(), "--name", "app"],
        &[("ADIT_EDGE", &token)],
    );
    let said = second.ended();
    said.refused(3, "ADIT-3006", &["refused"]);
    let listed = edge.ask(&lab, &["agents", "list"]).done();
    assert!(
        listed.contains("laptop") && listed.contains("only app"),
        "{listed}"
    );
    assert_eq!(keys(&lab, &edge).len(), 1, "{listed}");
    // The first one needs the token no more, and opens nothing else.
    assert_eq!(first.stop().0, Some(0));
    let again = lab.agent_with(
        "first",
        &[&target(), "--name", "app"],
        &[("ADIT_EDGE", &token)],
    );
    again.live("app");
    let other = lab.agent_with(
        "first",
        &[&target(), "--name", "other"],
        &[("ADIT_EDGE", &token)],
    );
    other.logged("ADIT-4001");
    assert_ne!(edge.get("other.test", "/").0, 200);
}

/// Many tunnels stand in one file; its agent was joined by a token.
#[test]
fn one_file_publishes_what_a_joined_machine_has() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let made = edge.ask(&lab, &["server", "token", "new", "--label", "laptop"]);
    let token = made.done().trim().to_owned();
    let joined = lab.run_with(&["join", "--data", "agent"], &[("ADIT_EDGE", &token)]);
    assert!(joined.done().contains("joined ed25519:"));
    let target = target();
    let file = lab.file(
        "client.toml",
        &format!(
            "[agent]\ndata = \"agent\"\n\
             [[tunnel]]\nname = \"app\"\nkind = \"http\"\ntarget = \"{target}\"\n\
             [[tunnel]]\ntarget = \"{target}\"\nauth = \"ann:sesame\"\n"
        ),
    );
    let agent = lab.start(&["client", "--config", &file], &[]);
    agent.live("app");
    let random = agent.process.line("the tunnel without a name", |line| {
        let mut words = line.strip_prefix("live ")?.split(' ');
        let name = words.next().filter(|name| *name != "app")?;
        Some(format!("{name}.test"))
    });
    assert_eq!(edge.get("app.test", "/").0, 200);
    assert_eq!(edge.get(&random, "/").0, 401);
    let login = "YW5uOnNlc2FtZQ==";
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {random}\r\nAuthorization: Basic {login}\r\n\
         Connection: close\r\n\r\n"
    );
    let (answer, _) = Socket::send_to(edge.http, request).rest();
    assert!(answer.ends_with(b"hello"), "{}", answer.escape_ascii());
    let revoked = edge.ask(&lab, &["agents", "revoke", "laptop"]).done();
    assert!(revoked.contains("1 live link ended"), "{revoked}");
    assert_ne!(edge.get("app.test", "/").0, 200);
    is_revoked(&agent.ended());
}

fn is_revoked(agent: &Said) {
    assert_eq!(agent.code, 3, "{agent:?}");
    let last = agent.err.split("error ").last().unwrap();
    assert!(
        last.starts_with("ADIT-3007: ") && last.contains("adit join"),
        "{agent:?}"
    );
}

/// The visitor's own stream ends, and the agent is told that it is refused.
#[test]
fn a_revoked_agent_loses_its_live_streams_within_a_second() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let (started, begun) = channel();
    let endless = origin(move |mut socket: Socket| {
        socket.head();
        socket.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        started.send(()).unwrap();
        socket.rest();
    });
    lab.join(&edge, "agent");
    let agent = lab.agent_with("agent", &[&endless.to_string(), "--name", "app"], &[]);
    agent.live("app");
    let mut visitor = Socket::send_to(edge.http, "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    visitor.until("hello\r\n");
    begun.recv().unwrap();
    let key = keys(&lab, &edge).remove(0);
    let said = edge.ask(&lab, &["agents", "revoke", &key]).done();
    let done = Instant::now();
    let (rest, _) = visitor.rest();
    let after = edge.get("app.test", "/").0;
    let took = done.elapsed();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it was cut, not completed");
    assert_ne!(after, 200, "something still leads to it");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(
        said.contains(&key) && said.contains("1 live link ended"),
        "{said}"
    );
    // The agent ends, its secret meets silence, and a join string given anew
    // counts more than what is remembered.
    is_revoked(&agent.ended());
    let own_secret = lab.agent_with("agent", &[&target(), "--name", "app"], &[]);
    own_secret.logged("ADIT-3003");
    assert_eq!(keys(&lab, &edge), Vec::<String>::new());
    lab.join(&edge, "agent");
    let back = lab.agent_with("agent", &[&target(), "--name", "back"], &[]);
    back.live("back");
}

/// `adit http` with a join string is a meeting with the edge too.
#[test]
fn the_only_edge_that_is_remembered_is_taken() {
    let lab = Lab::new();
    let edge = lab.edge("[admission]\npin = \"off\"");
    let join = edge.join(&lab);
    let first = lab.agent_with(
        "agent",
        &[&target(), "--name", "app"],
        &[("ADIT_EDGE", &join)],
    );
    first.live("app");
    assert_eq!(first.stop().0, Some(0));
    let second = lab.agent_with("agent", &[&target(), "--name", "app"], &[]);
    second.live("app");
}

#[test]
fn a_new_secret_keeps_agents_in_and_refuses_old_strings() {
    let lab = Lab::new();
    let edge = lab.edge("[admission]\npin = \"off\"");
    let old = edge.join(&lab);
    let joined = lab.run_with(&["join", "env:JOIN", "--data", "inside"], &[("JOIN", &old)]);
    assert_eq!(joined.code, 0, "{joined:?}");
    let inside = lab.agent_with("inside", &[&target(), "--name", "app"], &[]);
    inside.live("app");
    let rotated = edge.ask(&lab, &["secret", "rotate"]).done();
    let new = rotated.trim().to_owned();
    assert_ne!(new, old);
    assert_eq!(edge.join(&lab), new);
    assert_eq!(edge.get("app.test", "/").0, 200, "live agents stay");
    assert_eq!(inside.stop().0, Some(0));
    let inside = lab.agent_with("inside", &[&target(), "--name", "app"], &[]);
    inside.live("app");
    // Nothing of the old one had a grace time.
    let late = lab.run_with(&["join", "env:JOIN", "--data", "late"], &[("JOIN", &old)]);
    late.refused(4, "ADIT-3003", &["does not answer"]);
    let data = lab.text_of("late");
    let late = lab.run_with(&["join", "env:JOIN", "--data", &data], &[("JOIN", &new)]);
    assert_eq!(late.code, 0, "{late:?}");
}

/// An edge set up anew at the old address is refused until it is forgotten.
#[test]
fn an_edge_with_another_key_is_refused_until_the_old_one_is_forgotten() {
    let lab = Lab::new();
    let open = "[admission]\npin = \"off\"";
    let edge = lab.edge(open);
    let (doors, join) = (edge.doors(), edge.join(&lab));
    let data = lab.text_of("agent");
    let joined = lab.run_with(&["join", "env:JOIN", "--data", &data], &[("JOIN", &join)]);
    assert_eq!(joined.code, 0, "{joined:?}");
    let listed = lab.run(&["edge", "list", "--data", &data]).done();
    assert!(listed.contains("default"), "{listed}");
    let old_key = listed.split(' ').next().unwrap().to_owned();
    let secret = std::fs::read_to_string(lab.path("edge/secret")).unwrap();
    edge.running.stop();
    // The same secret, a new identity.
    std::fs::remove_dir_all(lab.path("edge")).unwrap();
    let secret = lab.file("kept-secret", secret.trim());
    let edge = lab.edge_at(&doors, &format!("{open}\nsecret = \"file:{secret}\""));
    let new_join = edge.join(&lab);
    let stale = lab.agent_with("agent", &[&target(), "--name", "app"], &[]);
    // The new edge cannot know what was proved to the old one: it is silent.
    let line = stale.logged("ADIT-300");
    assert!(
        line.contains("ADIT-3003") || line.contains("ADIT-3005"),
        "{line}"
    );
    stale.stop();
    let forgot = lab.run(&["edge", "forget", "--data", &data]).done();
    assert_eq!(forgot.trim(), format!("forgot {old_key}"));
    let none = lab
        .agent_with("agent", &[&target(), "--name", "app"], &[])
        .ended();
    none.refused(2, "ADIT-1203", &["not joined"]);
    let again = lab.run(&["edge", "forget", "--data", &data]);
    again.refused(2, "ADIT-5002", &["joined no edge"]);
    let agent = lab.agent_with(
        "agent",
        &[&target(), "--name", "app"],
        &[("ADIT_EDGE", &new_join)],
    );
    agent.live("app");
    assert_eq!(edge.get("app.test", "/").0, 200);
}
