//! `kill -9` of one side, under load and at rest.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_testkit::curl;
use adit_testkit::python::Origin;
use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::until_true;

use crate::adit;

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
                        let token = format!("v{number}c{count}");
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

/// Requests that had not been sent to the killed agent are served by the
/// others; a POST that had been sent to it is not repeated.
#[test]
fn of_three_agents_one_may_be_killed_under_load() {
    let adit = adit();
    let edge = adit.edge("");
    let seen: Vec<_> = (0..3).map(|_| Arc::new(Mutex::new(Vec::new()))).collect();
    let mut agents: Vec<_> = seen
        .iter()
        .enumerate()
        .map(|(number, seen)| adit.agent(&edge, &format!("agent{number}"), "app", counting(seen)))
        .collect();
    let visitors = 8;
    let load = Load::start(edge.http, visitors);
    load.wait_for_more(300);
    drop(agents.pop().unwrap().kill());
    load.wait_for_more(300);
    let failed = load.stop();
    // Each visitor has one request under way at most.
    assert!(failed.len() <= visitors, "{failed:?}");
    let served: Vec<Vec<String>> = seen.iter().map(|s| s.lock().unwrap().clone()).collect();
    for token in &failed {
        let elsewhere = served[..2].iter().any(|seen| seen.contains(token));
        assert!(!elsewhere, "{token} failed though a living agent had it");
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

#[test]
fn a_killed_edge_comes_back_with_its_agents() {
    let adit = adit();
    let origin = Origin::start("echo", &["one"]);
    let edge = adit.edge("");
    let agent = adit.agent(&edge, "agent", "app", origin.address);
    assert_eq!(curl::get(edge.http, "http://app.test/name").body, "one");
    let doors = edge.doors();
    drop(edge.process.kill());
    let again = adit.edge_at(doors, "");
    let back = Instant::now();
    until_true("the service is back", || {
        curl::get(again.http, "http://app.test/name").status == 200
    });
    let took = back.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    drop(agent);
}

#[test]
fn a_killed_agent_takes_its_name_back_at_once() {
    let adit = adit();
    let origin = Origin::start("echo", &["one"]);
    let edge = adit.edge("");
    for _ in 0..3 {
        let agent = adit.agent(&edge, "agent", "app", origin.address);
        assert_eq!(curl::get(edge.http, "http://app.test/name").body, "one");
        drop(agent.kill());
    }
}
