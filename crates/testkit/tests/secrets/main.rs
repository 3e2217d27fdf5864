//! No secret appears in any log, at the finest level of every crate in the
//! process.

#![expect(
    clippy::unwrap_used,
    reason = "code for tests alone, where a panic is how a test fails"
)]

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use adit_agent::{AgentEvent, Login, PinFrom};
use adit_model::{Pin, Psk};
use adit_testkit::curl;
use adit_testkit::nginx::Nginx;
use adit_testkit::raw::Socket;
use adit_testkit::world::{AgentPlan, World};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Everything that was logged.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

const PASSWORD: &str = "gQ7vKx2pWm4sTn9d";
const COOKIE: &str = "Zr8uYb3nHc6jLf1e";

#[test]
fn no_secret_is_logged_at_the_finest_level() {
    let captured = Captured::default();
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(captured.clone())
        .init();
    let (world, nginx) = (World::new(), Nginx::files());
    nginx.put("page.txt", "page");

    let mut plan = AgentPlan::new(&world, "app", nginx.address);
    plan.settings.tunnels[0].auth = Some(Login::parse(&format!("user:{PASSWORD}")).unwrap());
    let data = plan.settings.data.clone();
    let agent = world.start_agent(plan);
    agent.wait_live("app");
    visit(&world);
    let wrong = wrong_pin(&world, &nginx);
    agent.stop().unwrap();
    // A second time, with the agent's own secret.
    let mut plan = AgentPlan::new(&world, "app", nginx.address);
    plan.settings.data = data.clone();
    let agent = world.start_agent(plan);
    agent.wait_live("app");

    let mut secrets = BTreeSet::from([PASSWORD, COOKIE].map(str::to_owned));
    let join = &world.facts().join;
    secrets.insert(join.credential.psk().expose().to_owned());
    secrets.insert(join.expose());
    secrets.insert(world.edge().pin().unwrap().expose());
    secrets.insert(wrong.expose());
    for folder in [data, world.folder("edge")] {
        kept_secrets(&folder, &mut secrets);
    }
    assert!(
        secrets.len() >= 8,
        "the files hold identities and secrets: {}",
        secrets.len()
    );

    let text = captured.text();
    // Whatever there is below `info` was captured.
    assert!(text.contains("DEBUG"), "{text}");
    for secret in &secrets {
        let found = text.lines().find(|line| line.contains(secret.as_str()));
        assert_eq!(found, None, "a secret was logged");
    }
}

/// Requests that carry secrets of their own, good ones and bad ones.
fn visit(world: &World) {
    let login = format!("user:{PASSWORD}");
    let cookie = format!("Cookie: session={COOKIE}");
    let url = "http://app.test/page.txt";
    let reply = curl::request(world.http(), &["-u", &login, "-H", &cookie, url]);
    assert_eq!(reply.status, 200);
    assert_eq!(
        curl::request(world.http(), &["-H", &cookie, url]).status,
        401
    );
    let broken =
        format!("GET / HTTP/1.1\r\nHost: app.test\r\n{cookie}\r\nContent-Length: x\r\n\r\n");
    let (answer, _) = Socket::send_to(world.http(), broken).rest();
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
}

fn wrong_pin(world: &World, nginx: &Nginx) -> Pin {
    let right = world.edge().pin().unwrap();
    let mut tries = ["22X3Y4", "55Z6A7"]
        .into_iter()
        .map(|text| Pin::parse(text).unwrap());
    let wrong = tries.find(|pin| *pin != right).unwrap();
    let mut plan = AgentPlan::new(world, "other", nginx.address);
    plan.settings.pin = PinFrom::Fixed(wrong.clone());
    let agent = world.start_agent(plan);
    agent.wait("a refusal", |event| {
        matches!(event, AgentEvent::Refused(_)).then_some(())
    });
    wrong
}

/// Words of the data files that look like a key or a secret: what only the
/// owner may read.
fn kept_secrets(folder: &std::path::Path, secrets: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            kept_secrets(&path, secrets);
            continue;
        }
        // The control socket lies there too.
        if !path.is_file() {
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_+/=:".contains(c)));
        for word in words.filter(|word| Psk::parse(word).is_ok()) {
            // Identities are public; everything else of that kind is not.
            if !word.starts_with("ed25519:") {
                secrets.insert(word.to_owned());
            }
        }
    }
}
