//! A real DNS server, dnsmasq, and a real client, dig.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use crate::datagrams::free_udp_ports;
use crate::network::End;
use crate::peers::program;
use crate::process::Process;
use crate::wait::until_true;

/// A running server that knows one name, and one long text.
pub struct Dnsmasq {
    /// Where it listens, for UDP and for TCP.
    pub address: SocketAddr,
    _process: Process,
}

/// The name that it knows, and its address.
pub const NAME: (&str, &str) = ("service.adit.test", "192.0.2.53");
/// A name with so much text that only a large datagram holds it.
pub const LONG: &str = "long.adit.test";

impl Dnsmasq {
    /// Starts one on a port of the loopback.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn start() -> Self {
        // It takes the port for TCP, too.
        let port = free_udp_ports(1).first().copied().unwrap_or_default();
        Self::at((Ipv4Addr::LOCALHOST, port).into())
    }

    /// The same at an address.
    ///
    /// # Panics
    /// As [`Dnsmasq::start`].
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        let server = Self::by(Command::new(program("dnsmasq")), address);
        server.wait(|words| dig(address, words));
        server
    }

    /// The same inside one end of a network, on its loopback.
    ///
    /// # Panics
    /// As [`Dnsmasq::start`].
    #[must_use]
    pub fn inside(end: &End, port: u16) -> Self {
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let server = Self::by(end.command(program("dnsmasq")), address);
        server.wait(|words| dig_inside(end, address, words));
        server
    }

    fn by(mut command: Command, address: SocketAddr) -> Self {
        let text = "x".repeat(250);
        command
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
            ])
            .args(["--no-hosts", "--bind-interfaces", "--pid-file", "--user="])
            .args(["--edns-packet-max=4096", "--log-facility=-"])
            .arg(format!("--listen-address={}", address.ip()))
            .arg(format!("--port={}", address.port()))
            .arg(format!("--address=/{}/{}", NAME.0, NAME.1))
            .arg(format!(
                "--txt-record={LONG}{}",
                format!(",{text}").repeat(10)
            ));
        Self {
            address,
            _process: Process::spawn(command),
        }
    }

    fn wait(&self, dig: impl Fn(&[&str]) -> String) {
        until_true("dnsmasq answers", || {
            dig(&[NAME.0, "+tries=1", "+time=1"]) == NAME.1
        });
    }
}

/// Asks with dig: its short answer.
///
/// # Panics
/// When dig is not installed.
#[must_use]
pub fn dig(server: SocketAddr, words: &[&str]) -> String {
    asked(Command::new(program("dig")), server, words)
}

/// The same from one end of a network.
///
/// # Panics
/// When dig is not installed.
#[must_use]
pub fn dig_inside(end: &End, server: SocketAddr, words: &[&str]) -> String {
    asked(end.command(program("dig")), server, words)
}

fn asked(mut command: Command, server: SocketAddr, words: &[&str]) -> String {
    command
        .arg(format!("@{}", server.ip()))
        .args(["-p", &server.port().to_string(), "+short"])
        .args(words);
    let ended = Process::run(command);
    // Of each question that it had to repeat it says so.
    let lines = ended.lines.iter().filter(|line| !line.starts_with(';'));
    let lines: Vec<_> = lines.map(String::as_str).collect();
    lines.join("\n").trim().to_owned()
}
