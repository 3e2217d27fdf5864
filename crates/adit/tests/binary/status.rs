//! What a running edge tells its owner: once, and over and over.

use std::io::Read;
use std::os::fd::OwnedFd;

use adit_model::Code;
use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::{until, until_true};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use crate::lab::{Edge, Lab, Running};

/// Each round-trip time is measured by a heartbeat.
const SOON: &str = "[link]\nheartbeat_seconds = 1\n";

/// Starts an agent with the tunnel `app`, whose service answers `hello`.
fn publish(lab: &Lab, edge: &Edge) -> (Running, String) {
    let service = origin(|mut socket: Socket| {
        while socket.next_head().is_some() {
            socket.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    let target = service.to_string();
    let agent = lab.agent(edge, "agent", &[&target, "--name", "app"]);
    agent.live("app");
    (agent, target)
}

fn visit(edge: &Edge, times: usize) {
    for _ in 0..times {
        assert_eq!(edge.get("app.test", "/").0, 200);
    }
}

fn json(text: &str) -> Value {
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap()
}

fn shows_the_doors(all: &Value, edge: &Edge) {
    let [http, link, api] = edge.doors();
    let quic = link.clone();
    let doors = [("http", http), ("link", link), ("quic", quic), ("api", api)];
    for (at, (name, address)) in doors.into_iter().enumerate() {
        assert_eq!(all["doors"][at]["door"], *name, "{all}");
        assert_eq!(all["doors"][at]["address"], *address, "{all}");
    }
}

#[test]
fn the_status_is_one_object_with_everything() {
    let lab = Lab::new();
    let edge = lab.edge(SOON);
    let (agent, target) = publish(&lab, &edge);
    visit(&edge, 3);
    let all = until("a heartbeat has measured the link", || {
        let all = json(&edge.ask(&lab, &["status", "--json"]).done());
        all["links"][0]["rtt_us"].is_u64().then_some(all)
    });
    assert_eq!(all["version"], env!("CARGO_PKG_VERSION"));
    shows_the_doors(&all, &edge);
    let data = lab.text_of("agent");
    let key = lab.run(&["key", "show", "--data", &data]).done();
    let (link, tunnel) = (&all["links"][0], &all["tunnels"][0]);
    assert_eq!(
        (&link["agent"], &tunnel["agent"]),
        (&key.trim().into(), &link["agent"])
    );
    assert_eq!(
        (&link["carrier"], &tunnel["link"]),
        (&"tcp".into(), &link["link"])
    );
    assert!(link["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    let (since, time) = (link["since"].as_u64(), all["time"].as_u64());
    assert!(all["started"].as_u64() <= since && since <= time, "{all}");
    assert!(link["idle_channels"].is_u64() && link["busy_channels"].is_u64());
    assert_eq!(tunnel["name"], "app");
    assert_eq!(tunnel["kind"], "http");
    assert_eq!(
        tunnel["url"],
        format!("http://app.test:{}", edge.http.port())
    );
    assert!(
        tunnel["target"].as_str().unwrap().contains(&target),
        "{all}"
    );
    assert_eq!(
        (&tunnel["requests"], &tunnel["failures"]),
        (&3.into(), &0.into())
    );
    assert!(tunnel["bytes_out"].as_u64() >= Some(3 * 5), "{all}");
    assert_eq!(all["totals"]["links"], 1);
    assert_eq!(all["totals"]["tunnels"], 1);
    assert_eq!(all["totals"]["requests"], 3);
    // What is open leaves with its agent, what was counted stays.
    assert_eq!(agent.stop().0, Some(0));
    let gone = until("the agent is gone", || {
        let all = json(&edge.ask(&lab, &["status", "--json"]).done());
        (all["totals"]["links"] == 0).then_some(all)
    });
    assert_eq!(
        (&gone["links"], &gone["tunnels"]),
        (&Value::Array(vec![]), &Value::Array(vec![]))
    );
    assert_eq!(gone["totals"]["requests"], 3);
}

#[test]
fn the_status_is_a_page_for_people() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let idle = edge.ask(&lab, &["status"]).done();
    assert!(idle.contains("no agent is connected"), "{idle}");
    let (_agent, target) = publish(&lab, &edge);
    visit(&edge, 2);
    let page = edge.ask(&lab, &["status"]).done();
    assert!(page.starts_with("adit 0."), "{page}");
    assert!(page.contains(", 1 link, 1 tunnel\n"), "{page}");
    assert!(!page.contains('\u{1b}'), "{page}");
    for line in [
        format!("http  {}", edge.http),
        format!("link  {}", edge.link),
        format!("  http://app.test:{} -> http://{target}", edge.http.port()),
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line}\n{page}");
    }
    let row = page.lines().find(|line| line.starts_with("app ")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((cells[1], cells[4], cells[5]), ("http", "2", "0"), "{page}");
}

#[test]
fn rates_come_as_a_line_an_interval_until_the_signal() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let (_agent, _) = publish(&lab, &edge);
    let file = lab.text_of("server.toml");
    let top = lab.start(
        &["top", "--json", "--interval", "0.2", "--config", &file],
        &[],
    );
    let rates = |all: &Value| all["tunnels"][0]["rates"]["requests"].as_f64().unwrap();
    let next = |seen: usize| {
        until("another interval", || {
            top.process.lines().get(seen).map(|line| json(line))
        })
    };
    assert!(next(0)["interval_seconds"].as_f64() >= Some(0.1));
    visit(&edge, 5);
    let mut seen = 0;
    let busy = until("an interval with requests", || {
        let lines = top.process.lines();
        let all = json(lines.get(seen)?);
        seen += 1;
        (rates(&all) > 0.0).then_some(all)
    });
    assert!(
        busy["tunnels"][0]["rates"]["bytes_out"].as_f64() > Some(0.0),
        "{busy}"
    );
    assert!(
        busy["totals"]["rates"]["bytes_in"].as_f64() > Some(0.0),
        "{busy}"
    );
    let quiet = until("an interval without", || {
        let lines = top.process.lines();
        let all = json(lines.get(seen)?);
        seen += 1;
        (rates(&all) == 0.0).then_some(all)
    });
    assert_eq!(quiet["tunnels"][0]["requests"], 5);
    top.process.signal(Signal::INT);
    let said = top.ended();
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
}

/// A download that takes long is seen while it lasts, not when it ends.
#[test]
fn what_is_under_way_is_counted() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let endless = origin(move |mut socket: Socket| {
        socket.head();
        socket.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        socket.rest();
    });
    let _agent = {
        let agent = lab.agent(&edge, "agent", &[&endless.to_string(), "--name", "app"]);
        agent.live("app");
        agent
    };
    let mut visitor = Socket::send_to(edge.http, "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    visitor.until("hello\r\n");
    until("its bytes are counted", || {
        let all = json(&edge.ask(&lab, &["status", "--json"]).done());
        let (tunnel, totals) = (&all["tunnels"][0], &all["totals"]);
        let open = (&tunnel["visitors"], &totals["visitors"]) == (&1.into(), &1.into());
        let bytes = [&tunnel["bytes_out"], &totals["bytes_out"]];
        (open && bytes.iter().all(|bytes| bytes.as_u64() >= Some(5))).then_some(())
    });
}

/// Its reader has had enough, and its edge comes back.
#[test]
fn rates_outlive_the_edge_and_end_with_their_reader() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let (doors, file) = (edge.doors(), lab.text_of("server.toml"));
    let top = ["top", "--json", "--interval", "0.1", "--config", &file];
    let one = lab.start_in("\"$0\" \"$@\" | head -n 1", &top, &[]);
    assert!(one.ended().done().contains("\"interval_seconds\""));
    let top = lab.start(&top, &[]);
    let first = top.process.line("an interval", |line| Some(json(line)));
    edge.running.stop();
    top.logged("no answer, asked again each interval");
    let _edge = lab.edge_at(&doors, "");
    let again = |line: &str| {
        Some(json(line)).filter(|all| {
            all["time"].as_u64() > first["time"].as_u64() && all["uptime_seconds"] == 0
        })
    };
    let back = top.process.line("the edge again", again);
    assert_eq!(back["totals"]["rates"]["requests"], 0.0, "{back}");
    assert_eq!(top.stop().0, Some(0));
}

#[test]
fn without_an_edge_or_a_terminal_it_says_so() {
    let lab = Lab::new();
    for command in ["status", "top"] {
        let json = lab.run(&[command, "--json", "--data", "nowhere"]);
        json.refused(1, "ADIT-2201", &["no edge runs", "nowhere"]);
    }
    assert!(!lab.path("nowhere").exists());
    let edge = lab.edge("");
    let top = edge.ask(&lab, &["top"]);
    top.refused(2, &Code::USAGE.to_string(), &["terminal"]);
    assert!(top.err.contains("adit status --json"), "{top:?}");
    let file = lab.text_of("server.toml");
    edge.running.stop();
    let stopped = lab.run(&["status", "--config", &file]);
    stopped.refused(1, "ADIT-2201", &["adit server"]);
}

/// Ctrl-C at a terminal: the other screen is left and the cursor is back.
#[test]
fn a_terminal_is_left_as_it_was() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let file = lab.text_of("server.toml");
    let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&keys).unwrap();
    unlockpt(&keys).unwrap();
    let path = ptsname(&keys, Vec::new()).unwrap().into_string().unwrap();
    let top = lab.start_in(
        "exec \"$0\" \"$@\" >\"$TERMINAL\"",
        &["top", "--config", &file],
        &[("TERMINAL", &path)],
    );
    let mut screen = Screen::new(keys);
    screen.until("TOTAL");
    top.process.signal(Signal::INT);
    screen.until("\u{1b}[?1049l");
    let said = top.ended();
    assert_eq!(said.code, 0, "{said:?}");
    let shown = screen.text();
    assert!(shown.starts_with("\u{1b}[?1049h\u{1b}[?25l"), "{shown:?}");
    assert!(shown.ends_with("\u{1b}[?25h\u{1b}[?1049l"), "{shown:?}");
    assert!(shown.contains(&edge.http.to_string()), "{shown:?}");
}

/// What a program has written to a terminal.
struct Screen {
    keys: std::fs::File,
    seen: Vec<u8>,
}

impl Screen {
    fn new(keys: OwnedFd) -> Self {
        fcntl_setfl(&keys, OFlags::NONBLOCK).unwrap();
        Self {
            keys: keys.into(),
            seen: Vec::new(),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    fn until(&mut self, text: &str) {
        until_true("it is on the terminal", || {
            let mut bytes = [0; 4096];
            // Nothing to read yet is an error too.
            let count = self.keys.read(&mut bytes).unwrap_or(0);
            self.seen.extend_from_slice(&bytes[..count]);
            self.text().contains(text)
        });
    }
}
