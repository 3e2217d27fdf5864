use std::fmt::Display;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tokio::process::Command;

use super::Programs;
use crate::error::BenchError;
use crate::process::Running;
use crate::workshop::{fill, free};

/// How much of its protection stays on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Settings {
    /// No limits and no access log, as the peers have none.
    Free,
    /// As shipped.
    Default,
}

pub(super) async fn start(
    programs: &Programs,
    dir: &Path,
    origin: SocketAddr,
    settings: Settings,
) -> Result<(Vec<Running>, SocketAddr), BenchError> {
    let program = programs.get("adit")?;
    let (edge, door) = start_edge(programs, dir, settings).await?;
    let client = include_str!("../../peers/adit-client.toml");
    let values: [(&str, &dyn Display); 2] = [("dir", &dir.display()), ("origin", &origin)];
    let client = fill(dir, "client.toml", client, &values)?;
    let arguments = ["client".as_ref(), "--config".as_ref(), client.as_os_str()];
    let agent = programs.agent(program, &arguments, dir, "client")?;
    Ok((vec![agent, edge], door))
}

/// The same service through a TCP tunnel with this compression.
pub(super) async fn start_tcp(
    programs: &Programs,
    dir: &Path,
    origin: SocketAddr,
    compression: &str,
) -> Result<(Vec<Running>, SocketAddr), BenchError> {
    let program = programs.get("adit")?;
    let (edge, _) = start_edge(programs, dir, Settings::Free).await?;
    let client = include_str!("../../peers/adit-tcp-client.toml");
    let values: [(&str, &dyn Display); 3] = [
        ("dir", &dir.display()),
        ("origin", &origin),
        ("compression", &compression),
    ];
    let client = fill(dir, "client.toml", client, &values)?;
    let arguments = ["client".as_ref(), "--config".as_ref(), client.as_os_str()];
    let agent = programs.agent(program, &arguments, dir, "client")?;
    on_port(agent, edge, "tcp").await
}

/// A UDP service through a UDP tunnel.
pub(super) async fn start_udp(
    programs: &Programs,
    dir: &Path,
    origin: SocketAddr,
) -> Result<(Vec<Running>, SocketAddr), BenchError> {
    let program = programs.get("adit")?;
    let (edge, _) = start_edge(programs, dir, Settings::Free).await?;
    let client = include_str!("../../peers/adit-udp-client.toml");
    let values: [(&str, &dyn Display); 2] = [("dir", &dir.display()), ("origin", &origin)];
    let client = fill(dir, "client.toml", client, &values)?;
    let arguments = ["client".as_ref(), "--config".as_ref(), client.as_os_str()];
    let agent = programs.agent(program, &arguments, dir, "client")?;
    on_port(agent, edge, "udp").await
}

/// The edge chooses the port and tells it.
async fn on_port(
    mut agent: Running,
    edge: Running,
    scheme: &str,
) -> Result<(Vec<Running>, SocketAddr), BenchError> {
    let log = agent.log().to_owned();
    let told = || {
        let said = fs::read_to_string(&log).ok()?;
        let (_, rest) = said.split_once(&format!("{scheme}://localhost:"))?;
        let (port, _) = rest.split_once(' ')?;
        port.parse::<u16>().ok()
    };
    agent.until("its port", async || told().is_some()).await?;
    let port = told().unwrap_or_default();
    Ok((vec![agent, edge], SocketAddr::from(([127, 0, 0, 1], port))))
}

/// Starts an edge, and writes its join string to `dir/join`.
pub(crate) async fn start_edge(
    programs: &Programs,
    dir: &Path,
    settings: Settings,
) -> Result<(Running, SocketAddr), BenchError> {
    let program = programs.get("adit")?;
    let (link, door, api) = (programs.link()?, free()?, free()?);
    let server = match settings {
        Settings::Free => include_str!("../../peers/adit-server.toml"),
        Settings::Default => include_str!("../../peers/adit-server-default.toml"),
    };
    let values: [(&str, &dyn Display); 4] = [
        ("dir", &dir.display()),
        ("link", &link),
        ("door", &door),
        ("api", &api),
    ];
    let server = fill(dir, "server.toml", server, &values)?;
    let arguments = ["server".as_ref(), "--config".as_ref(), server.as_os_str()];
    let mut edge = Running::start(program, &arguments, dir, "server")?;
    let log = edge.log().to_owned();
    let ready = |said: String| said.lines().any(|line| line == "ready");
    edge.until("ready", async || fs::read_to_string(&log).is_ok_and(ready))
        .await?;
    fs::write(dir.join("join"), join_string(program, &server).await?)
        .map_err(BenchError::io("write the join string"))?;
    Ok((edge, door))
}

async fn join_string(program: &Path, config: &Path) -> Result<String, BenchError> {
    let output = Command::new(program)
        .args(["server".as_ref(), "--config".as_ref(), config.as_os_str()])
        .arg("--print-join")
        .output()
        .await
        .map_err(BenchError::io("run adit server --print-join"))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && text.starts_with("adit1") {
        return Ok(text);
    }
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(BenchError::Failed(format!(
        "adit server --print-join: {why}"
    )))
}
