//! Visitors that ask without a pause and check every byte.

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::{DEADLINE, until_true};

use super::bytes::{Message, body, read};

/// Requests on one connection.
const KEPT: u64 = 12;
/// Longest body of a usual request.
const LONGEST: u64 = 120_000;

/// A time in which requests for some names may fail.
struct Trouble {
    names: &'static [&'static str],
    begun: Instant,
    ended: Instant,
}

struct Failure {
    name: &'static str,
    begun: Instant,
    ended: Instant,
    why: String,
}

#[derive(Default)]
struct State {
    paused: bool,
    over: bool,
    /// Visitors that do not rest.
    busy: usize,
    done: HashMap<&'static str, u64>,
    failures: Vec<Failure>,
    troubles: Vec<Trouble>,
    /// Answers that nobody may ever get.
    wrong: Vec<String>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while all shall rest; whether to go on.
    fn goes_on(&self) -> bool {
        let mut state = self.lock();
        if state.paused && !state.over {
            state.busy -= 1;
            while state.paused && !state.over {
                let woken = self.changed.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
            }
            state.busy += 1;
        }
        !state.over
    }

    fn rests(&self) -> bool {
        let state = self.lock();
        state.paused || state.over
    }

    /// A visitor that got nothing tries again a moment later, or when something
    /// changes.
    fn moment(&self) {
        let state = self.lock();
        drop(self.changed.wait_timeout(state, Duration::from_millis(20)));
    }
}

/// The visitors.
pub(super) struct Load {
    shared: Arc<Shared>,
    visitors: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts a visitor for each of these names.
    pub(super) fn start(door: SocketAddr, seed: u64, names: &[&'static str]) -> Self {
        let shared = Arc::<Shared>::default();
        shared.lock().busy = names.len();
        let visitors = names.iter().enumerate().map(|(number, name)| {
            let visitor = Visitor {
                shared: Arc::clone(&shared),
                door,
                name,
                token: format!("{seed:x}-{number}"),
            };
            std::thread::spawn(move || visitor.live())
        });
        let visitors = visitors.collect();
        Self { shared, visitors }
    }

    fn done(&self, name: &str) -> u64 {
        self.shared.lock().done.get(name).copied().unwrap_or(0)
    }

    /// Waits until visitors of a name have got so many more answers.
    pub(super) fn more(&self, name: &str, answers: u64) {
        let goal = self.done(name) + answers;
        until_true(&format!("{answers} more answers from {name}"), || {
            self.done(name) >= goal
        });
    }

    /// Notes that requests for these names might fail since then.
    pub(super) fn trouble(&self, names: &'static [&'static str], begun: Instant) {
        let ended = Instant::now();
        self.shared.lock().troubles.push(Trouble {
            names,
            begun,
            ended,
        });
    }

    /// Lets every visitor finish and leave; then checks what they have seen.
    pub(super) fn pause(&self) {
        self.shared.lock().paused = true;
        until_true("all visitors have left", || self.shared.lock().busy == 0);
        let state = self.shared.lock();
        assert!(state.wrong.is_empty(), "{:?}", state.wrong);
        for failure in &state.failures {
            let excused = state.troubles.iter().any(|trouble| {
                trouble.names.contains(&failure.name)
                    && failure.begun <= trouble.ended
                    && failure.ended >= trouble.begun
            });
            assert!(
                excused,
                "a request for {} failed though nothing had happened to it: {}",
                failure.name, failure.why
            );
        }
    }

    /// Lets them go on.
    pub(super) fn resume(&self) {
        self.shared.lock().paused = false;
        self.shared.changed.notify_all();
    }

    /// Sends them home; answers and failures.
    pub(super) fn end(mut self) -> (u64, usize) {
        self.pause();
        self.stop();
        let state = self.shared.lock();
        (state.done.values().sum(), state.failures.len())
    }

    fn stop(&mut self) {
        self.shared.lock().over = true;
        self.shared.changed.notify_all();
        for visitor in self.visitors.drain(..) {
            let _ = visitor.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Visitor {
    shared: Arc<Shared>,
    door: SocketAddr,
    name: &'static str,
    token: String,
}

impl Visitor {
    fn live(&self) {
        let mut connection = None;
        let mut count = 0u64;
        while self.shared.goes_on() {
            let begun = Instant::now();
            let socket = connection.take().or_else(|| connect(self.door));
            let Some(mut socket) = socket else {
                self.failed(begun, "the door is shut".to_owned());
                continue;
            };
            count += 1;
            let token = format!("{}-{count}", self.token);
            let asked = ask(&mut socket, self.name, &token, request(&token, count));
            match asked {
                Ok(()) => {
                    *self.shared.lock().done.entry(self.name).or_default() += 1;
                    let keeps = !count.is_multiple_of(KEPT) && !self.shared.rests();
                    connection = keeps.then_some(socket);
                }
                Err(Bad::Failed(why)) => self.failed(begun, why),
                Err(Bad::Wrong(why)) => self.shared.lock().wrong.push(why),
            }
        }
    }

    fn failed(&self, begun: Instant, why: String) {
        self.shared.lock().failures.push(Failure {
            name: self.name,
            begun,
            ended: Instant::now(),
            why,
        });
        self.shared.moment();
    }
}

/// Every third request carries a body; the longest are rare.
fn request(token: &str, count: u64) -> (Vec<u8>, usize) {
    let random = body(token, 8);
    let random = u64::from_le_bytes(random.try_into().unwrap());
    let length = match count % 8 {
        0 => random % LONGEST,
        _ => random % 4000,
    };
    let length = usize::try_from(length).unwrap();
    if count.is_multiple_of(3) {
        (body(&format!("{token} sent"), length), length)
    } else {
        (Vec::new(), length)
    }
}

/// How a request went wrong.
pub(super) enum Bad {
    /// As it may while something happens.
    Failed(String),
    /// As it never may.
    Wrong(String),
}

type Connection = BufReader<TcpStream>;

pub(super) fn connect(door: SocketAddr) -> Option<Connection> {
    let stream = TcpStream::connect(door).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    Some(BufReader::new(stream))
}

/// Sends; a failure shows in the answer.
pub(super) fn write(socket: &Connection, bytes: &[u8]) {
    let mut stream = socket.get_ref();
    let _ = stream.write_all(bytes);
}

/// One request, and a look at every byte of the answer.
pub(super) fn ask(
    socket: &mut Connection,
    name: &str,
    token: &str,
    (sent, wanted): (Vec<u8>, usize),
) -> Result<(), Bad> {
    let method = if sent.is_empty() { "GET" } else { "POST" };
    let head = format!(
        "{method} /{token} HTTP/1.1\r\nHost: {name}.test\r\nX-Wanted: {wanted}\r\n\
         Content-Length: {}\r\n\r\n",
        sent.len()
    );
    let failed = |why: &str| Bad::Failed(format!("{token}: {why}"));
    write(socket, &[head.as_bytes(), &sent].concat());
    let answer = read(socket).ok_or_else(|| failed("no answer"))?;
    let status = answer.words().get(1).copied().unwrap_or_default();
    if status != "200" {
        return Err(failed(&answer.head));
    }
    let wrong = |what: &str| {
        let length = answer.body.len();
        let head = &answer.head;
        Err(Bad::Wrong(format!(
            "{token}: {what}: {head} {length} bytes"
        )))
    };
    if answer.field("x-token") != Some(token) {
        return wrong("the answer is somebody else's");
    }
    let right = body(&format!("{name} {token}"), wanted);
    if !right.starts_with(&answer.body) {
        return wrong("the body is not what was asked for");
    }
    match (answer.whole, answer.body.len() == right.len()) {
        (true, true) => Ok(()),
        (true, false) => wrong("a part looks like the whole"),
        (false, _) => Err(failed("it broke off")),
    }
}

/// A service of a name: answers with the bytes that a request wants, and only
/// if what the request brought is what its visitor sends.
pub(super) fn service(name: &'static str) -> SocketAddr {
    origin(move |socket: Socket| {
        let mut from = BufReader::new(socket.stream());
        while let Some(request) = read(&mut from).filter(|request| request.whole) {
            let mut stream = socket.stream();
            if stream.write_all(&answer(name, &request)).is_err() {
                return;
            }
        }
    })
}

fn answer(name: &str, request: &Message) -> Vec<u8> {
    let words = request.words();
    let token = words[1].trim_start_matches('/');
    let sent = match words[0] {
        "POST" => body(&format!("{token} sent"), request.body.len()),
        _ => Vec::new(),
    };
    // An answer that every visitor takes for a wrong one.
    let token = if request.body == sent {
        token
    } else {
        "broken"
    };
    let wanted = request.field("x-wanted").and_then(|n| n.parse().ok());
    let body = body(&format!("{name} {token}"), wanted.unwrap_or(0));
    let head = format!("HTTP/1.1 200 OK\r\nX-Token: {token}\r\n");
    let mut bytes = head.into_bytes();
    if body.len().is_multiple_of(2) {
        bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
        bytes.extend(body);
    } else {
        bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
        for chunk in body.chunks(5000) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
    }
    bytes
}
