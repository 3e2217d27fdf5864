use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tokio::net::TcpStream;

use super::Programs;
use crate::error::BenchError;
use crate::process::Running;
use crate::workshop::free;

pub(super) const INSTALL: [&str; 4] = ["bore-cli", "--version", "0.6.0", "--locked"];

/// Its control port is fixed in its code.
const CONTROL: u16 = 7835;

/// It has no settings that bear on speed: no `nodelay`, no pool, no cipher.
pub(super) async fn start(
    programs: &Programs,
    dir: &Path,
    origin: SocketAddr,
) -> Result<(Vec<Running>, SocketAddr), BenchError> {
    let program = programs.get("bore")?;
    let door = free()?;
    let port = door.port().to_string();
    let loopback = Ipv4Addr::LOCALHOST.to_string();
    let server = [
        "server",
        "--bind-addr",
        &loopback,
        "--min-port",
        &port,
        "--max-port",
        &port,
    ];
    let mut edge = Running::start(program, &server, dir, "server")?;
    edge.until("listening on its fixed port 7835", async || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, CONTROL))
            .await
            .is_ok()
    })
    .await?;
    let service = origin.port().to_string();
    let client = [
        "local",
        &service,
        "--local-host",
        &loopback,
        "--to",
        &loopback,
        "--port",
        &port,
    ];
    let agent = Running::start(program, &client, dir, "client")?;
    Ok((vec![agent, edge], door))
}
