//! Real proxies at an end of a network: tinyproxy for HTTP `CONNECT`,
//! microsocks for SOCKS5.

use std::net::SocketAddr;

use crate::network::End;
use crate::peers::program;
use crate::process::Process;

/// A name and a password.
pub type Login<'a> = Option<(&'a str, &'a str)>;

/// A running proxy.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it says.
    pub process: Process,
    _folder: tempfile::TempDir,
}

const HTTP_PORT: u16 = 3128;
const SOCKS_PORT: u16 = 1080;

impl Proxy {
    /// An HTTP proxy that lets `CONNECT` pass to any of these ports, to any
    /// where there is none, and asks for a login if one is given.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn http(end: &End, ports: &[u16], login: Login<'_>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = SocketAddr::from((end.address(), HTTP_PORT));
        let mut config = format!(
            "Listen {}\nPort {HTTP_PORT}\nTimeout 600\nMaxClients 200\nLogLevel Connect\n",
            end.address()
        );
        for port in ports {
            config += &format!("ConnectPort {port}\n");
        }
        if let Some((name, password)) = login {
            config += &format!("BasicAuth {name} {password}\n");
        }
        let file = folder.path().join("tinyproxy.conf");
        std::fs::write(&file, config).expect("its configuration");
        let mut command = end.command(program("tinyproxy"));
        command.arg("-d").arg("-c").arg(file);
        Self::started(end, address, Process::spawn(command), folder)
    }

    /// A SOCKS5 proxy that asks for a login if one is given.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn socks(end: &End, login: Login<'_>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = SocketAddr::from((end.address(), SOCKS_PORT));
        let mut command = end.command(program("microsocks"));
        command
            .args(["-i", &end.address().to_string()])
            .args(["-p", &SOCKS_PORT.to_string()]);
        if let Some((name, password)) = login {
            command.args(["-u", name, "-P", password]);
        }
        Self::started(end, address, Process::spawn(command), folder)
    }

    fn started(
        end: &End,
        address: SocketAddr,
        process: Process,
        folder: tempfile::TempDir,
    ) -> Self {
        end.wait_for_listener(address.port());
        Self {
            address,
            process,
            _folder: folder,
        }
    }
}
