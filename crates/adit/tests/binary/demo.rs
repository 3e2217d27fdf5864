//! `adit demo --check`: it verifies the whole path, and fails without one.

use std::fs;

use adit_testkit::peers::program;

use crate::lab::{Lab, Said, own};

#[test]
fn the_demo_checks_itself_and_keeps_nothing() {
    let lab = Lab::new();
    fs::create_dir(lab.path("temporary")).unwrap();
    let folder = lab.text_of("temporary");
    let said = lab.run_with(&["demo", "--check"], &[("TMPDIR", &folder)]);
    let out = said.done();
    for part in ["answers 200", "round trip", "nobody publishes is refused"] {
        assert!(out.contains(part), "{out}");
    }
    assert_eq!(fs::read_dir(lab.path("temporary")).unwrap().count(), 0);
}

/// `demo --check` in a network of its own, after this command of the shell.
fn in_a_network(lab: &Lab, rules: &str) -> Said {
    let shell = format!(
        "exec {} --net sh -c '{} link set lo up && {rules} && exec \"$0\" \"$@\"' \"$0\" \"$@\"",
        own(),
        program("ip").display()
    );
    let arguments = ["demo", "--check", "--link", "127.0.0.1:7411"];
    lab.start_in(&shell, &arguments, &[]).ended()
}

/// Edge and agent of the demo share nothing but the socket.
#[test]
fn the_demo_fails_when_its_link_port_is_blocked() {
    let lab = Lab::new();
    let said = in_a_network(&lab, "true");
    assert!(said.done().contains("round trip"));
    // The lookup of local addresses makes room for a rule in front of it.
    let rules = "ip rule add pref 10 lookup local && ip rule del pref 0 \
                 && ip rule add pref 5 ipproto 6 dport 7411 prohibit \
                 && ip rule add pref 6 ipproto 17 dport 7411 prohibit";
    let rules = rules.replace("ip rule", &format!("{} rule", program("ip").display()));
    let said = in_a_network(&lab, &rules);
    said.refused(1, "ADIT-5003", &["no link", "127.0.0.1:7411"]);
}
