use std::fmt::Display;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpStream;
use tokio::process::Command;

use super::Programs;
use crate::error::BenchError;
use crate::process::Running;
use crate::workshop::{fill, free};

pub(super) const PROGRAMS: [(&str, &str); 3] = [
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
];

/// Where sshd confines its unprivileged part; Debian makes it when the
/// system's own sshd starts, which may never have happened.
const CONFINEMENT: &str = "/run/sshd";

/// A server of the bench's own, with its own keys, on a loopback port.
pub(super) async fn start(
    programs: &Programs,
    dir: &Path,
    origin: SocketAddr,
) -> Result<(Vec<Running>, SocketAddr), BenchError> {
    for key in ["host_key", "user_key"] {
        make_key(programs.get("ssh-keygen")?, &dir.join(key)).await?;
    }
    let root = rustix::process::geteuid().is_root();
    if root {
        fs::create_dir_all(CONFINEMENT).map_err(BenchError::io("make /run/sshd"))?;
    }
    let (link, door) = (programs.link()?, free()?);
    let template = include_str!("../../peers/sshd_config");
    let values: [(&str, &dyn Display); 2] = [("dir", &dir.display()), ("link", &link)];
    let file = fill(dir, "sshd_config", template, &values)?;
    let arguments = [
        "-D".as_ref(),
        "-e".as_ref(),
        "-f".as_ref(),
        file.as_os_str(),
    ];
    let mut edge = Running::start(programs.get("sshd")?, &arguments, dir, "sshd")?;
    edge.until("listening", async || TcpStream::connect(link).await.is_ok())
        .await?;
    let user = if root {
        "root".to_owned()
    } else {
        std::env::var("USER").unwrap_or_default()
    };
    let arguments = [
        "-N".to_owned(),
        "-F".to_owned(),
        "none".to_owned(),
        "-i".to_owned(),
        dir.join("user_key").display().to_string(),
        "-p".to_owned(),
        link.port().to_string(),
        "-oStrictHostKeyChecking=no".to_owned(),
        "-oUserKnownHostsFile=/dev/null".to_owned(),
        "-oIdentitiesOnly=yes".to_owned(),
        "-oBatchMode=yes".to_owned(),
        "-oExitOnForwardFailure=yes".to_owned(),
        "-oCompression=no".to_owned(),
        "-oCiphers=aes128-gcm@openssh.com".to_owned(),
        format!("-R{door}:{origin}"),
        format!("{user}@{}", link.ip()),
    ];
    let agent = programs.agent(programs.get("ssh")?, &arguments, dir, "ssh")?;
    Ok((vec![agent, edge], door))
}

async fn make_key(keygen: &Path, path: &Path) -> Result<(), BenchError> {
    if path.is_file() {
        return Ok(());
    }
    let done = Command::new(keygen)
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f"])
        .arg(path)
        .status()
        .await
        .map_err(BenchError::io("run ssh-keygen"))?;
    if done.success() {
        return Ok(());
    }
    Err(BenchError::Failed("ssh-keygen made no key".into()))
}
