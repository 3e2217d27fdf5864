//! A real OpenSSH server, for the user who runs the tests.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::peers::program;
use crate::process::Process;
use crate::wait::until_true;

/// A running server that lets one key in.
pub struct Sshd {
    /// Where it listens.
    pub address: SocketAddr,
    folder: tempfile::TempDir,
    _process: Process,
}

fn make_key(file: &Path) {
    let mut command = Command::new(program("ssh-keygen"));
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(file);
    let ended = Process::run(command);
    assert!(ended.status.success(), "{}", ended.text());
}

impl Sshd {
    /// Starts one on a port of the loopback.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        make_key(&at("host"));
        make_key(&at("guest"));
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = probe.local_addr().expect("its address");
        drop(probe);
        let config = format!(
            "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin yes\nLogLevel ERROR\n",
            at("host").display(),
            at("guest.pub").display()
        );
        std::fs::write(at("config"), config).expect("its configuration");
        if rustix::process::geteuid().is_root() {
            // What its Debian service makes before it starts.
            std::fs::create_dir_all("/run/sshd").expect("the server's empty folder");
        }
        let mut command = Command::new(program("sshd"));
        command.args(["-D", "-e", "-f"]).arg(at("config"));
        let process = Process::spawn(command);
        until_true("sshd listens", || TcpStream::connect(address).is_ok());
        Self {
            address,
            folder,
            _process: process,
        }
    }

    /// The client, prepared to log in by another address than the server's
    /// own; the words of a command may follow.
    ///
    /// # Panics
    /// When it is not installed.
    #[must_use]
    pub fn client(&self, by: SocketAddr) -> Command {
        let mut command = Command::new(program("ssh"));
        let known = std::fs::read_to_string(self.folder.path().join("host.pub"));
        let known = format!("by {}", known.expect("the server's key"));
        let file = self.folder.path().join("known");
        std::fs::write(&file, known).expect("the known hosts");
        command
            .args(["-F", "none", "-T", "-o", "BatchMode=yes"])
            .args(["-o", "HostKeyAlias=by", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", &format!("UserKnownHostsFile={}", file.display())])
            .arg("-i")
            .arg(self.folder.path().join("guest"))
            .args(["-p", &by.port().to_string(), &by.ip().to_string()]);
        command
    }
}
