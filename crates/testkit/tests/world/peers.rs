//! The peers themselves, without Adit between them: when these fail, the
//! machine is to blame.

use adit_testkit::nginx::Nginx;
use adit_testkit::process::Process;
use adit_testkit::python::{Origin, script};
use adit_testkit::wait::until_true;
use adit_testkit::{counters, curl};

#[test]
fn curl_gets_a_page_from_nginx() {
    let nginx = Nginx::files();
    nginx.put("page.txt", "from nginx\n");
    let reply = curl::get(nginx.address, "http://any.test/page.txt");
    assert_eq!((reply.status, reply.body.as_str()), (200, "from nginx"));
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    until_true("nginx has written its log", || nginx.requests().len() == 1);
}

#[test]
fn the_python_origin_tells_what_it_saw() {
    let origin = Origin::start("echo", &["one"]);
    let url = "http://app.test/a?b=c";
    let reply = curl::request(origin.address, &["-H", "X-Mark: here", "-d", "hello", url]);
    for part in [
        "\"POST\"",
        "/a?b=c",
        "\"X-Mark\", \"here\"",
        "\"length\": 5",
    ] {
        assert!(reply.body.contains(part), "{part} in {}", reply.body);
    }
    assert_eq!(
        curl::get(origin.address, "http://app.test/name").body,
        "one"
    );
}

#[test]
fn websocket_peers_talk_to_each_other() {
    let origin = Origin::start("websocket", &["serve"]);
    let door = origin.address.to_string();
    let mut load = script("crates/testkit/python/websocket.py");
    load.args(["load", "ws://app.test/", &door, "20"]);
    let ended = Process::run(load);
    assert!(ended.status.success(), "{}", ended.text());
    assert!(ended.text().contains("echoed 20"));
}

#[test]
fn processes_are_counted_and_end() {
    let origin = Origin::start("echo", &[]);
    let held = counters::held(&origin.process.id().to_string());
    assert!(held.descriptors > 2 && held.memory > 1000);
    let ended = origin.process.kill();
    assert!(!ended.status.success());
}
