//! No secret leaves the programs by what they say: logs at their finest, stdout,
//! the audit log.

use std::collections::BTreeSet;
use std::fs;

use adit_testkit::process::Process;
use adit_testkit::python::script;
use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::until_true;

use crate::lab::{Edge, Lab, Running, files};

const PASSWORD: &str = "hT4wq9LrZx2vNc7k";
const BEARER: &str = "Qm8sPd3yBf6uKj1e";
const COOKIE: &str = "Xa5tGv0oRi2lWn9h";
const QUERY: &str = "eJ7mZc4kSq9bHw2u";
/// `user:` and the password, as a visitor sends both.
const BASIC: &str = "dXNlcjpoVDR3cTlMclp4MnZOYzdr";

/// Everything that was said, and everything that must not be.
struct Watch {
    said: Vec<(String, String)>,
    secrets: BTreeSet<String>,
}

impl Watch {
    /// Stops a process and keeps what it said.
    fn stop(&mut self, what: &str, running: Running) {
        running.process.terminate();
        self.ended(what, running);
    }

    /// The same for one that ends by itself; its exit status.
    fn ended(&mut self, what: &str, running: Running) -> i32 {
        let said = running.ended();
        self.said.push((format!("stdout of {what}"), said.out));
        self.said.push((format!("log of {what}"), said.err));
        said.code
    }

    /// The secrets that stand in files: every long word but public keys.
    fn read(&mut self, lab: &Lab, folder: &str) {
        for file in files(&lab.path(folder)) {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
            if name == "audit.log" {
                self.said.push(("audit log".to_owned(), text));
            } else if ["identity.json", "secret", "agents.json"].contains(&name.as_str())
                || file.parent().unwrap().ends_with("edges")
            {
                let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_:".contains(c)));
                let long = words.filter(|word| word.len() >= 40 && !word.starts_with("ed25519:"));
                self.secrets.extend(long.map(str::to_owned));
            }
        }
    }

    fn check(&self) {
        let shown: BTreeSet<_> = self.secrets.iter().collect();
        assert!(shown.len() >= 15, "{}", shown.len());
        for (what, text) in &self.said {
            for secret in &self.secrets {
                let line = text.lines().find(|line| line.contains(secret));
                assert_eq!(line, None, "{secret} is in the {what}");
            }
        }
    }
}

fn target() -> String {
    let served = origin(|mut socket: Socket| {
        socket.head();
        socket.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    });
    served.to_string()
}

fn visit(edge: &Edge, host: &str, login: &str) -> u16 {
    let request = format!(
        "GET /path?token={QUERY} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {login}\r\n\
         Cookie: session={COOKIE}\r\nReferer: http://{host}/?token={QUERY}\r\n\
         Connection: close\r\n\r\n"
    );
    let (answer, _) = Socket::send_to(edge.http, request).rest();
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// Visitors, good and bad, and a reader of the statistics.
fn visitors(lab: &Lab, edge: &Edge) {
    assert_eq!(visit(edge, "app.test", &format!("Basic {BASIC}")), 200);
    assert_eq!(visit(edge, "app.test", "Basic dXNlcjp3cm9uZw=="), 401);
    assert_eq!(visit(edge, "open.test", &format!("Bearer {BEARER}")), 200);
    assert_ne!(visit(edge, "nobody.test", &format!("Bearer {BEARER}")), 200);
    let broken = format!("GET / HTTP/1.1\r\nHost: app.test\r\nCookie: {COOKIE}\r\nA b: c\r\n\r\n");
    Socket::send_to(edge.http, broken).rest();
    let mut reader = script("examples/sync_stats.py");
    reader
        .arg(format!("http://{}", edge.http))
        .arg(lab.path("edge/secret"));
    let ended = Process::run(reader);
    assert!(ended.status.success(), "{}", ended.text());
}

#[test]
fn no_secret_is_in_any_log_or_output_through_a_whole_life() {
    let lab = Lab::new();
    for format in ["text", "json"] {
        let (edge, agents) = ("edge", [format!("one-{format}"), format!("two-{format}")]);
        let mut watch = Watch {
            said: Vec::new(),
            secrets: [PASSWORD, BEARER, COOKIE, BASIC, QUERY]
                .map(str::to_owned)
                .into(),
        };
        life(&lab, format, &agents, &mut watch);
        for folder in [edge, &agents[0], &agents[1]] {
            watch.read(&lab, folder);
        }
        watch.check();
    }
}

fn life(lab: &Lab, format: &str, agents: &[String; 2], watch: &mut Watch) {
    let loud = ("ADIT_LOG_LEVEL", "trace");
    let form = ("ADIT_LOG_FORMAT", format);
    let doors = ["127.0.0.1:0"; 3].map(str::to_owned);
    let edge = lab.edge_with(&doors, "drain_seconds = 1", &[loud, form]);
    let (join, pin) = (edge.join(lab), edge.pin(lab));
    let wrong = if pin == "22X3Y4" { "55Z6A7" } else { "22X3Y4" };
    let made = edge.ask(lab, &["server", "token", "new", "--label", "two"]);
    let token = made.done().trim().to_owned();
    watch.read(lab, "edge");

    // Joins with a wrong PIN, the right one, and a token.
    for (data, string, pin, status) in [
        (&agents[0], &join, wrong, 3),
        (&agents[0], &join, pin.as_str(), 0),
        (&agents[1], &token, "", 0),
    ] {
        let data = lab.text_of(data);
        let variables = [loud, form, ("ADIT_EDGE", string), ("ADIT_PIN", pin)];
        let joined = lab.start(
            &["join", "--data", &data, "--log-level", "trace"],
            &variables,
        );
        assert_eq!(watch.ended("join", joined), status);
    }
    watch
        .secrets
        .extend([&join, &token, &pin].map(|secret| (*secret).clone()));
    watch.secrets.insert(wrong.to_owned());

    let login = format!("user:{PASSWORD}");
    let app = lab.agent_with(
        &agents[0],
        &[&target(), "--name", "app"],
        &[loud, form, ("ADIT_AUTH", &login)],
    );
    let open = lab.agent_with(&agents[1], &[&target(), "--name", "open"], &[loud, form]);
    app.live("app");
    open.live("open");
    visitors(lab, &edge);
    // Their own secrets now, old and new ones of the edge, and a revocation.
    watch.read(lab, "edge");
    let rotated = edge.ask(lab, &["secret", "rotate"]).done();
    watch.secrets.insert(rotated.trim().to_owned());
    watch.secrets.insert(edge.pin(lab));
    let revoked = edge.ask(lab, &["agents", "revoke", "two"]);
    assert_eq!(revoked.code, 0, "{revoked:?}");
    watch
        .said
        .push(("revoke".to_owned(), revoked.out + &revoked.err));
    until_true("it is out", || edge.get("open.test", "/").0 != 200);
    assert_eq!(watch.ended("revoked agent", open), 3);
    watch.stop("agent", app);
    // What stands beside them in a request was logged.
    let log = edge.running.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    assert!(log.contains("/path"), "{log}");
    watch.stop("edge", edge.running);
}
