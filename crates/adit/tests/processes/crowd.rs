//! Ten thousand strangers at the link door.

use std::process::Command;
use std::time::{Duration, Instant};

use adit_testkit::nginx::Nginx;
use adit_testkit::process::Process;
use adit_testkit::python::script;
use adit_testkit::{counters, curl};

use crate::adit;

const STRANGERS: &str = "10000";

/// Silent connections are closed without a byte, and nobody else notices.
#[test]
fn ten_thousand_silent_strangers_change_nothing_for_visitors() {
    let (adit, nginx) = (adit(), Nginx::files());
    nginx.put("page.txt", "private");
    let edge = adit.edge("");
    let _agent = adit.agent(&edge, "agent", "app", nginx.address);
    let mut strangers: Command = script("crates/testkit/python/silent.py");
    strangers.args([&edge.link.to_string(), STRANGERS]);
    let strangers = Process::spawn(strangers);
    let mut slowest = Duration::ZERO;
    let request = || {
        let begun = Instant::now();
        assert_eq!(
            curl::get(edge.http, "http://app.test/page.txt").body,
            "private"
        );
        begun.elapsed()
    };
    strangers.line("that all are open", |line| {
        slowest = slowest.max(request());
        line.starts_with("open ").then_some(())
    });
    for _ in 0..50 {
        slowest = slowest.max(request());
    }
    // Starting curl takes its share of the half second.
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    let ended = strangers.ended();
    assert!(ended.status.success(), "{}", ended.text());
    let longest: f64 = ended
        .text()
        .rsplit(' ')
        .next()
        .and_then(|seconds| seconds.trim().parse().ok())
        .expect("how long the last one took");
    assert!(longest <= 16.0, "{longest} s until the last was closed");
    let held = counters::held(&edge.process.id().to_string());
    assert!(held.descriptors < 200, "{held:?}");
}
