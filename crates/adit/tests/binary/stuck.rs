//! Nobody reads what it writes: a paused terminal, a pager, a container's log
//! that is full. What serves goes on, and ends when it is told to.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};

use adit_model::Code;
use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::until_true;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::lab::{Lab, Running, get};

/// Visitors at the same time: more than an agent keeps channels ready for.
const CROWD: usize = 24;

/// A place to write to: a pipe or a terminal.
struct Unread {
    path: String,
    /// Our own end, which shows whether there is room.
    end: OwnedFd,
}

impl Unread {
    /// A pipe that nobody reads.
    fn pipe(lab: &Lab) -> Self {
        let path = lab.text_of("pipe");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        Self::open(path)
    }

    /// The same without any room left.
    fn full_pipe(lab: &Lab) -> Self {
        let pipe = Self::pipe(lab);
        let written = loop {
            if let Err(error) = rustix::io::write(&pipe.end, &[b'x'; 4096]) {
                break error;
            }
        };
        assert_eq!(written, Errno::AGAIN);
        pipe
    }

    fn open(path: String) -> Self {
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let end = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(i32::try_from(flags.bits()).unwrap())
            .open(&path);
        let end = end.unwrap().into();
        Self { path, end }
    }

    fn has_room(&self) -> bool {
        let mut ends = [PollFd::new(&self.end, PollFlags::OUT)];
        poll(&mut ends, Some(&Timespec::default())).unwrap() > 0
    }
}

/// A terminal with its other side.
struct Terminal {
    screen: Unread,
    keys: OwnedFd,
}

impl Terminal {
    fn open() -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let path = ptsname(&keys, Vec::new()).unwrap().into_string().unwrap();
        let screen = Unread::open(path);
        Self { screen, keys }
    }

    /// Ctrl-S.
    fn pause(&self) {
        assert_eq!(rustix::io::write(&self.keys, b"\x13"), Ok(1));
        until_true("the terminal is paused", || !self.screen.has_room());
    }
}

fn hello() -> SocketAddr {
    origin(|mut socket: Socket| {
        socket.head();
        socket.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    })
}

/// A lab in which an edge ran that knows the agent `agent`: its doors, which
/// the next edge has too, and its file.
fn prepared(lab: &Lab, tables: &str) -> ([SocketAddr; 3], String) {
    let edge = lab.edge(tables);
    lab.join(&edge, "agent");
    let doors = edge.doors();
    assert_eq!(edge.running.stop().0, Some(0));
    let file = lab.server_file(&doors, tables);
    (doors.map(|door| door.parse().unwrap()), file)
}

fn ends_in_order(running: Running) {
    running.process.terminate();
    let said = running.ended();
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn an_edge_serves_while_nobody_reads_its_log() {
    for level in ["info", "trace"] {
        let lab = Lab::new();
        let upstream = hello();
        let route = format!("[[route]]\nhost = \"up.test\"\nupstream = \"http://{upstream}\"\n");
        let ([http, _, api], file) = prepared(&lab, &route);
        let pipe = Unread::pipe(&lab);
        let edge = lab.start_in(
            "exec \"$0\" \"$@\" 2>\"$PIPE\"",
            &["server", "--config", &file, "--log-level", level],
            &[("PIPE", &pipe.path)],
        );
        edge.line("ready");
        let target = hello().to_string();
        let agent = lab.agent_with("agent", &[&target, "--name", "app"], &[]);
        agent.live("app");
        let long = format!("/{}", "a".repeat(2000));
        until_true("lines have filled the pipe", || {
            assert_eq!(get(http, "up.test", &long).0, 200);
            !pipe.has_room()
        });
        // The rest of the last page, and then all visitors of both workers.
        for _ in 0..40 {
            assert_eq!(get(http, "up.test", &long).0, 200);
            assert_eq!(get(http, "app.test", &long).0, 200);
        }
        // The workers have something to say.
        assert_eq!(agent.stop().0, Some(0));
        until_true("the edge has seen that", || {
            get(http, "app.test", "/").0 != 200
        });
        for _ in 0..20 {
            assert_eq!(get(http, "up.test", "/").0, 200);
        }
        assert_eq!(get(api, &api.to_string(), "/_sys/health").0, 200);
        ends_in_order(edge);
    }
}

#[test]
fn an_edge_starts_and_ends_while_nobody_reads_its_facts() {
    let lab = Lab::new();
    let ([http, _, api], file) = prepared(&lab, "");
    let pipe = Unread::full_pipe(&lab);
    let edge = lab.start_in(
        "exec \"$0\" \"$@\" >\"$PIPE\" 2>&1",
        &["server", "--config", &file],
        &[("PIPE", &pipe.path)],
    );
    until_true("its doors are open", || TcpStream::connect(http).is_ok());
    assert_eq!(get(api, &api.to_string(), "/_sys/health").0, 200);
    ends_in_order(edge);
}

#[test]
fn a_second_signal_ends_an_edge_that_nobody_reads() {
    let lab = Lab::new();
    let (inside, wait) = channel();
    let endless = origin(move |mut socket: Socket| {
        socket.head();
        inside.send(()).unwrap();
        socket.rest();
    });
    let tables = format!(
        "drain_seconds = 3600\n[[route]]\nhost = \"up.test\"\nupstream = \"http://{endless}\"\n"
    );
    let ([http, ..], file) = prepared(&lab, &tables);
    let pipe = Unread::full_pipe(&lab);
    let edge = lab.start_in(
        "exec \"$0\" \"$@\" 2>\"$PIPE\"",
        &["server", "--config", &file],
        &[("PIPE", &pipe.path)],
    );
    edge.line("ready");
    let _visitor = Socket::send_to(http, "GET / HTTP/1.1\r\nHost: up.test\r\n\r\n");
    wait.recv().unwrap();
    edge.process.terminate();
    until_true("its doors are closed", || TcpStream::connect(http).is_err());
    edge.process.terminate();
    let status = i32::from(Code::DRAIN_CUT.fault().exit_status());
    assert_eq!(edge.ended().code, status);
}

#[test]
fn an_agent_serves_behind_a_paused_terminal() {
    for more in [&[][..], &["--log-level", "trace"]] {
        let lab = Lab::new();
        let edge = lab.edge("");
        lab.join(&edge, "agent");
        let together = Arc::new(Barrier::new(CROWD));
        let target = origin(move |mut socket: Socket| {
            if socket.head().starts_with("GET /together ") {
                together.wait();
            }
            socket.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        });
        let (target, data) = (target.to_string(), lab.text_of("agent"));
        let terminal = Terminal::open();
        let agent = lab.start_in(
            "exec \"$0\" \"$@\" <\"$TTY\" >\"$TTY\" 2>&1",
            &[&["http", &target, "--name", "app", "--data", &data], more].concat(),
            &[("TTY", &terminal.screen.path)],
        );
        until_true("it is live", || edge.get("app.test", "/").0 == 200);
        terminal.pause();
        // The view has something new to show.
        assert_eq!(edge.get("app.test", "/").0, 200);
        let door = edge.http;
        let visit = move || get(door, "app.test", "/together").0;
        let crowd: Vec<_> = (0..CROWD).map(|_| std::thread::spawn(visit)).collect();
        for visitor in crowd {
            assert_eq!(visitor.join().unwrap(), 200);
        }
        ends_in_order(agent);
        drop(terminal.keys);
    }
}

#[test]
fn a_failure_has_its_status_while_nobody_reads_why() {
    let lab = Lab::new();
    let pipe = Unread::full_pipe(&lab);
    let data = lab.text_of("agent");
    let agent = lab.start_in(
        "exec \"$0\" \"$@\" 2>\"$PIPE\"",
        &["http", "3000", "--data", &data],
        &[("PIPE", &pipe.path)],
    );
    let status = i32::from(Code::JOIN_ABSENT.fault().exit_status());
    assert_eq!(agent.ended().code, status);
}
