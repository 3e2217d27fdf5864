//! From two commands to a page, and an orderly end.

use adit_testkit::curl;
use adit_testkit::nginx::Nginx;
use adit_testkit::wait::until_true;

use crate::adit;

#[test]
fn a_server_and_one_command_publish_a_service() {
    let (adit, nginx) = (adit(), Nginx::files());
    nginx.put("page.txt", "private");
    let edge = adit.edge("");
    let agent = adit.agent(&edge, "agent", "app", nginx.address);
    let reply = curl::get(edge.http, "http://app.test/page.txt");
    assert_eq!((reply.status, reply.body.as_str()), (200, "private"));
    for process in [agent, edge.process] {
        process.terminate();
        let ended = process.ended();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.text());
    }
}

#[test]
fn many_tunnels_stand_in_one_file() {
    let (adit, nginx) = (adit(), Nginx::files());
    nginx.put("page.txt", "private");
    let edge = adit.edge("");
    let file = adit.file(
        "client.toml",
        &format!(
            "[agent]\nedge = \"env:JOIN\"\npin = \"env:PIN\"\ndata = \"{}\"\n\
             [[tunnel]]\nname = \"one\"\nkind = \"http\"\ntarget = \"{address}\"\n\
             [[tunnel]]\nname = \"two\"\nkind = \"http\"\ntarget = \"{address}\"\n",
            adit.path("agent").display(),
            address = nginx.address
        ),
    );
    let mut command = adit.command(&["client", "--config", &file]);
    command.env("JOIN", adit.join(&edge)).env("PIN", adit.pin());
    let agent = adit_testkit::process::Process::spawn(command);
    for name in ["one", "two"] {
        agent.line("that it is live", |line| {
            line.starts_with(&format!("live {name} ")).then_some(())
        });
        let url = format!("http://{name}.test/page.txt");
        assert_eq!(curl::get(edge.http, &url).body, "private");
    }
}

#[test]
fn a_revoked_agent_is_out_within_a_second() {
    let (adit, nginx) = (adit(), Nginx::files());
    nginx.put("page.txt", "private");
    let edge = adit.edge("");
    let config = adit.path("server.toml");
    let config = config.to_str().unwrap();
    let _agent = adit.agent(&edge, "agent", "app", nginx.address);
    assert_eq!(curl::get(edge.http, "http://app.test/page.txt").status, 200);
    let listed = adit.done(&["agents", "list", "--config", config]);
    let key = listed
        .split_whitespace()
        .find(|word| word.starts_with("ed25519:"))
        .unwrap_or_else(|| panic!("no agent in: {listed}"));
    let done = adit.done(&["agents", "revoke", key, "--config", config]);
    assert!(!done.is_empty());
    until_true("its tunnel is gone", || {
        curl::get(edge.http, "http://app.test/page.txt").status != 200
    });
}
