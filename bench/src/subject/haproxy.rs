use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpStream;

use super::Programs;
use crate::error::BenchError;
use crate::process::Running;
use crate::workshop::{fill, free};

/// One process between visitor and service; it has a thread for each core.
pub(super) async fn start(
    programs: &Programs,
    dir: &Path,
    origin: SocketAddr,
) -> Result<(Vec<Running>, SocketAddr), BenchError> {
    let door = free()?;
    let template = include_str!("../../peers/haproxy.cfg");
    let values: [(&str, &dyn Display); 2] = [("door", &door), ("origin", &origin)];
    let file = fill(dir, "haproxy.cfg", template, &values)?;
    let arguments = ["-db".as_ref(), "-f".as_ref(), file.as_os_str()];
    let mut hop = Running::start(programs.get("haproxy")?, &arguments, dir, "haproxy")?;
    hop.until("listening", async || TcpStream::connect(door).await.is_ok())
        .await?;
    Ok((vec![hop], door))
}
