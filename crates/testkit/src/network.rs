//! A network that a test makes: namespaces, and between them a wire with delay,
//! loss, a rate and holes, which can be changed while packets fly.
//!
//! Each end is a network namespace with addresses of its own, the same in every
//! test; programs are placed in it with [`End::command`]. The wire is
//! `python/network.py`: kernels without `sch_netem` and packet filters run it as
//! well. It needs root, or user namespaces; where the system gives neither, or
//! no `/dev/net/tun`, the test that needs it fails and says so. Nothing has to
//! be cleaned up, not even after a test was killed.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::peers::{program, python, repository};
use crate::process::Process;
use crate::wait::until_true;

/// One condition of a way; all others stay as they were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    /// How long a packet takes.
    Delay(Duration),
    /// How much longer it takes at random, so that packets overtake each other.
    Jitter(Duration),
    /// The share of packets that is lost, 0 to 1.
    Loss(f64),
    /// Mbit/s, 0 for as fast as it goes.
    Rate(f64),
    /// Bytes that may wait for the rate; what comes then is lost.
    Queue(usize),
    /// Larger packets, IP header included, vanish without a word; 0 for none.
    Mtu(usize),
    /// Whether UDP passes.
    Udp(bool),
    /// TCP and UDP of any other port vanish; 0 to let all pass.
    OnlyPort(u16),
    /// Whether nothing passes.
    Cut(bool),
    /// Begins chance anew.
    Seed(u32),
}

impl Condition {
    fn words(self) -> String {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        match self {
            Self::Delay(time) => format!("delay={}", milliseconds(time)),
            Self::Jitter(time) => format!("jitter={}", milliseconds(time)),
            Self::Loss(share) => format!("loss={share}"),
            Self::Rate(rate) => format!("rate={rate}"),
            Self::Queue(bytes) => format!("queue={bytes}"),
            Self::Mtu(bytes) => format!("mtu={bytes}"),
            Self::Udp(passes) => format!("udp={}", u8::from(passes)),
            Self::OnlyPort(port) => format!("only={port}"),
            Self::Cut(cut) => format!("cut={}", u8::from(cut)),
            Self::Seed(seed) => format!("seed={seed}"),
        }
    }
}

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What a way did to packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that came out.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost because the queue was full.
    pub full: u64,
    /// Larger than what passes.
    pub hole: u64,
    /// UDP where none passes.
    pub udp: u64,
    /// Of a port that does not pass.
    pub port: u64,
    /// While nothing passed.
    pub cut: u64,
}

/// A running network; dropping it takes its wire away.
pub struct Network {
    wire: Mutex<Wire>,
    ends: Vec<End>,
}

struct Wire {
    process: Process,
    asked: u64,
}

/// One end of a network.
pub struct End {
    name: String,
    number: u8,
    inside: u32,
}

impl Network {
    /// A network of these ends, with a wire that does nothing to packets.
    ///
    /// # Panics
    /// When the system has no network namespaces or TUN devices for us.
    #[must_use]
    pub fn new(names: &[&str]) -> Self {
        let mut command = if rustix::process::geteuid().is_root() {
            Command::new(python())
        } else {
            let mut command = Command::new(program("unshare"));
            command.args(["--user", "--map-root-user"]).arg(python());
            command
        };
        command
            .arg("-u")
            .arg(repository("crates/testkit/python/network.py"))
            .args(names)
            .stdin(Stdio::piped());
        let process = Process::spawn(command);
        process.line("that its network is ready", |line| {
            (line == "ready").then_some(())
        });
        let ends = names.iter().zip(1..).map(|(name, number)| End {
            name: (*name).to_owned(),
            number,
            inside: process.line("which process is inside", |line| {
                let rest = line.strip_prefix("end ")?.strip_prefix(name)?;
                rest.trim().parse().ok()
            }),
        });
        let ends = ends.collect();
        let wire = Mutex::new(Wire { process, asked: 0 });
        Self { wire, ends }
    }

    /// One of its ends.
    ///
    /// # Panics
    /// When there is none of this name.
    #[must_use]
    pub fn end(&self, name: &str) -> &End {
        let found = self.ends.iter().find(|end| end.name == name);
        found.unwrap_or_else(|| panic!("this network has no end {name}"))
    }

    /// Sets conditions on every way.
    ///
    /// # Panics
    /// When the wire is gone.
    pub fn set(&self, conditions: &[Condition]) {
        self.set_way("*", "*", conditions);
    }

    /// Sets conditions between two ends, both ways.
    ///
    /// # Panics
    /// As [`Network::set_way`].
    pub fn set_between(&self, one: &str, other: &str, conditions: &[Condition]) {
        self.set_way(one, other, conditions);
        self.set_way(other, one, conditions);
    }

    /// Sets conditions on the way from one end to another; `*` is all of them.
    ///
    /// # Panics
    /// When there is no such way, or the wire is gone.
    pub fn set_way(&self, from: &str, to: &str, conditions: &[Condition]) {
        let words: Vec<_> = conditions.iter().map(|c| c.words()).collect();
        self.ask("set", &format!("{from} {to} {}", words.join(" ")));
    }

    /// What happened on a way so far; `*` adds all of them.
    ///
    /// # Panics
    /// As [`Network::set_way`].
    #[must_use]
    pub fn counts(&self, from: &str, to: &str) -> Counts {
        let said = self.ask("count", &format!("{from} {to}"));
        let mut counts = Counts::default();
        for (key, value) in said.split(' ').filter_map(|field| field.split_once('=')) {
            let value = value.parse().expect("a count");
            *(match key {
                "packets" => &mut counts.packets,
                "bytes" => &mut counts.bytes,
                "lost" => &mut counts.lost,
                "full" => &mut counts.full,
                "hole" => &mut counts.hole,
                "udp" => &mut counts.udp,
                "port" => &mut counts.port,
                "cut" => &mut counts.cut,
                other => panic!("no count {other}"),
            }) = value;
        }
        counts
    }

    /// Packets of this port, at either side, that were offered to a way,
    /// whether they passed or not.
    ///
    /// # Panics
    /// As [`Network::set_way`].
    #[must_use]
    pub fn seen(&self, from: &str, to: &str, protocol: Protocol, port: u16) -> u64 {
        let protocol = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let said = self.ask("seen", &format!("{from} {to} {protocol} {port}"));
        said.parse().expect("a count")
    }

    fn ask(&self, word: &str, rest: &str) -> String {
        let mut wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        wire.asked += 1;
        let number = wire.asked;
        wire.process.say(&format!("{word} {number} {rest}\n"));
        let begin = format!("answer {number} ");
        let answer = |line: &str| Some(line.strip_prefix(&begin)?.to_owned());
        wire.process.line(&format!("an answer to {word}"), answer)
    }
}

impl End {
    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.more_address(1)
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn address6(&self) -> Ipv6Addr {
        self.more_address6(1)
    }

    /// Another address that is led to it, and vanishes there until
    /// [`End::take`] makes it its own.
    #[must_use]
    pub fn more_address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 73, self.number, last)
    }

    /// As [`End::more_address`], of IPv6.
    #[must_use]
    pub fn more_address6(&self, last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd73, 0, 0, self.number.into(), 0, 0, 0, last)
    }

    /// Gives it another address.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn take(&self, address: IpAddr) {
        let mut command = self.command(program("ip"));
        command
            .args(["addr", "add", &address.to_string(), "dev", "wire"])
            .args(address.is_ipv6().then_some("nodad"));
        let ended = Process::run(command);
        assert!(ended.status.success(), "{address}: {}", ended.text());
    }

    /// Sets a kernel parameter of its network, as `net.ipv4.tcp_mtu_probing`.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn sysctl(&self, name: &str, value: &str) {
        let mut command = self.command(program("sysctl"));
        command.args(["-q", "-w", &format!("{name}={value}")]);
        let ended = Process::run(command);
        assert!(ended.status.success(), "{name}: {}", ended.text());
    }

    /// A command that runs a program inside; arguments and the rest may follow.
    /// The process has the id that the program would have anywhere.
    ///
    /// # Panics
    /// When `nsenter` is not installed.
    #[must_use]
    pub fn command(&self, program_file: impl AsRef<OsStr>) -> Command {
        let mut words = self.words().into_iter();
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).arg(program_file);
        command
    }

    /// The words in front of a command that place it inside, for a line of
    /// shell.
    ///
    /// # Panics
    /// When `nsenter` is not installed.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let nsenter = program("nsenter").display().to_string();
        let mut words = vec![nsenter, format!("--target={}", self.inside)];
        if !rustix::process::geteuid().is_root() {
            words.extend(["--user", "--preserve-credentials"].map(str::to_owned));
        }
        words.extend(["--net", "--"].map(str::to_owned));
        words
    }

    /// As [`End::command`], with another `/etc/hosts`: each line is an address
    /// and a name.
    ///
    /// # Panics
    /// As [`End::command`].
    #[must_use]
    pub fn command_with_hosts(&self, hosts: &Path, program_file: impl AsRef<OsStr>) -> Command {
        let mut command = self.command(program("unshare"));
        command
            .args(["--mount", "--", "sh", "-c"])
            .arg("mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"")
            .arg("sh")
            .arg(hosts)
            .arg(program_file);
        command
    }

    /// Runs something in a thread that is inside: its sockets are this end's
    /// for as long as they live.
    ///
    /// # Panics
    /// When the system refuses, which it does to all but root.
    pub fn inside<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let file = format!("/proc/{}/ns/net", self.inside);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let space = File::open(&file).expect("a network namespace");
                move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("the right to enter a network namespace, which root has");
                run()
            });
            let ended = thread.join();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Waits until something inside listens on a TCP port.
    ///
    /// # Panics
    /// When nothing does in time.
    pub fn wait_for_listener(&self, port: u16) {
        let what = format!("{} listens on {port}", self.name);
        until_true(&what, || {
            let mut command = self.command(program("ss"));
            command.args(["-Hltn", &format!("sport = :{port}")]);
            !Process::run(command).lines.is_empty()
        });
    }
}
