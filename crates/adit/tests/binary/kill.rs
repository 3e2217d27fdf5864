//! `kill -9` of one side, under load and at rest.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use adit_testkit::curl;
use adit_testkit::python::Origin;
use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::until_true;

use crate::lab::{Edge, Lab, Running};

/// Visitors that post without a pause, one request after the other.
struct Load {
    over: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    visitors: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(door: SocketAddr, visitors: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let failed = Arc::new(Mutex::new(Vec::new()));
        let visitors = (0..visitors)
            .map(|number| {
                let (over, done, failed) = (over.clone(), done.clone(), failed.clone());
                std::thread::spawn(move || {
                    for count in 0.. {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        // So long that no other contains it.
                        let token = format!("v{number:02}c{count:06}");
                        if posted(door, &token) {
                            done.fetch_add(1, Ordering::Relaxed);
                        } else {
                            failed.lock().unwrap().push(token);
                        }
                    }
                })
            })
            .collect();
        Self {
            over,
            done,
            failed,
            visitors,
        }
    }

    fn wait_for_more(&self, requests: usize) {
        let goal = self.done.load(Ordering::Relaxed) + requests;
        until_true("more requests are done", || {
            self.done.load(Ordering::Relaxed) >= goal
        });
    }

    fn stop(self) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        for visitor in self.visitors {
            visitor.join().unwrap();
        }
        let failed = self.failed.lock().unwrap();
        failed.clone()
    }
}

fn posted(door: SocketAddr, token: &str) -> bool {
    let request = format!(
        "POST /{token} HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    );
    let (answer, _) = Socket::send_to(door, request).rest();
    answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"done")
}

/// An origin that writes down what it was asked before it answers.
fn counting(seen: &Arc<Mutex<Vec<String>>>) -> SocketAddr {
    let seen = Arc::clone(seen);
    origin(move |mut socket| {
        // An agent keeps its connection for the next request.
        while let Some(head) = socket.next_head() {
            socket.exactly(2);
            let token = head.split(' ').nth(1).unwrap_or_default();
            seen.lock()
                .unwrap()
                .push(token.trim_start_matches('/').to_owned());
            socket.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        }
    })
}

/// `adit http` for a service under the name `app`, live.
fn publish(lab: &Lab, edge: &Edge, who: &str, service: SocketAddr) -> Running {
    let agent = lab.agent(edge, who, &[&service.to_string(), "--name", "app"]);
    agent.live("app");
    agent
}

/// Whom the access log names as the backend that was asked last for this
/// request, and the status that the visitor got.
fn logged(edge: &Edge, token: &str) -> (String, u64) {
    let line = edge.running.logged(&format!("\"path\":\"/{token}\""));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let backend = line["backend"].as_str().unwrap_or_default().to_owned();
    (backend, line["status"].as_u64().unwrap())
}

/// Requests that had not been sent to the killed agent are served by the
/// others; a POST that had been sent to it is not repeated.
#[test]
fn of_three_agents_one_may_be_killed_under_load() {
    let lab = Lab::new();
    let edge = lab.edge("[limits]\nrequests_per_second = 0\n[log]\nformat = \"json\"");
    let seen: Vec<_> = (0..3).map(|_| Arc::new(Mutex::new(Vec::new()))).collect();
    let mut agents: Vec<_> = seen
        .iter()
        .enumerate()
        .map(|(number, seen)| publish(&lab, &edge, &format!("agent{number}"), counting(seen)))
        .collect();
    let visitors = 8;
    let load = Load::start(edge.http, visitors);
    load.wait_for_more(300);
    drop(agents.pop().unwrap().process.kill());
    load.wait_for_more(300);
    let failed = load.stop();
    // Each visitor has one request under way at most.
    assert!(failed.len() <= visitors, "{failed:?}");
    let served: Vec<Vec<String>> = seen.iter().map(|s| s.lock().unwrap().clone()).collect();
    let data = lab.text_of("agent2");
    let key = lab.run(&["key", "show", "--data", &data]).done();
    let killed = format!("app@{}", &key["ed25519:".len()..][..8]);
    for token in &failed {
        let elsewhere = served[..2].iter().any(|seen| seen.contains(token));
        assert!(!elsewhere, "{token} failed though a living agent had it");
        assert_eq!(logged(&edge, token), (killed.clone(), 502), "{token}");
    }
    let mut all: Vec<&String> = served.iter().flatten().collect();
    all.sort();
    let before = all.len();
    all.dedup();
    assert_eq!(all.len(), before, "a POST arrived twice");
    assert!(
        served.iter().all(|seen| seen.len() > 50),
        "each had its turn"
    );
}

/// It is killed with a request under way that no other agent has had: that one
/// is lost, and told to its visitor, and nothing else is.
#[test]
fn a_request_that_was_sent_to_a_killed_agent_fails_once() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let (arrived, arrivals) = std::sync::mpsc::channel();
    let stuck = origin(move |mut socket| {
        socket.head();
        arrived.send(()).unwrap();
        socket.rest();
    });
    let other = Arc::new(Mutex::new(Vec::new()));
    let stuck = publish(&lab, &edge, "stuck", stuck);
    let door = edge.http;
    let visitor = std::thread::spawn(move || posted(door, "first"));
    arrivals.recv().unwrap();
    let _other = publish(&lab, &edge, "other", counting(&other));
    drop(stuck.process.kill());
    assert!(!visitor.join().unwrap(), "nobody has answered it");
    for count in 0..10 {
        assert!(posted(door, &format!("later{count}")));
    }
    let seen = other.lock().unwrap().clone();
    assert_eq!(seen.len(), 10, "{seen:?}");
    assert!(!seen.contains(&"first".to_owned()), "it was sent again");
}

#[test]
fn a_killed_agent_takes_its_name_back_at_once() {
    let lab = Lab::new();
    let origin = Origin::start("echo", &["one"]);
    let edge = lab.edge("");
    let exclusive = lab.file(
        "client.toml",
        &format!(
            "[agent]\ndata = \"agent\"\n[[tunnel]]\nname = \"app\"\n\
             target = \"{}\"\nexclusive = true\n",
            origin.address
        ),
    );
    lab.join(&edge, "agent");
    for _ in 0..3 {
        let agent = lab.start(&["client", "--config", &exclusive], &[]);
        agent.live("app");
        assert_eq!(curl::get(edge.http, "http://app.test/name").body, "one");
        drop(agent.process.kill());
    }
}
