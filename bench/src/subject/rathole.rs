use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpStream;

use super::Programs;
use crate::error::BenchError;
use crate::process::Running;
use crate::workshop::{fill, free};

/// Its lock file no longer compiles with current toolchains, so it is not
/// asked for; of its transports only those that are measured are built.
pub(super) const INSTALL: [&str; 6] = [
    "rathole",
    "--version",
    "0.5.0",
    "--no-default-features",
    "--features",
    "client,server,noise",
];

/// Its default pattern with AES in place of ChaCha20: as fast within the
/// noise, at a fifth less CPU on machines with AES instructions.
const PATTERN: &str = "Noise_NK_25519_AESGCM_BLAKE2s";

#[derive(Debug, Clone, Copy)]
pub(super) enum Transport {
    Plain,
    Noise,
}

pub(super) async fn start(
    programs: &Programs,
    dir: &Path,
    origin: SocketAddr,
    transport: Transport,
    protocol: &str,
) -> Result<(Vec<Running>, SocketAddr), BenchError> {
    let program = programs.get("rathole")?;
    let (link, door) = (programs.link()?, free()?);
    let (server, client, keys) = match transport {
        Transport::Plain => (
            include_str!("../../peers/rathole-server.toml"),
            include_str!("../../peers/rathole-client.toml"),
            Keys::default(),
        ),
        Transport::Noise => (
            include_str!("../../peers/rathole-noise-server.toml"),
            include_str!("../../peers/rathole-noise-client.toml"),
            Keys::make(program).await?,
        ),
    };
    let values: [(&str, &dyn Display); 7] = [
        ("protocol", &protocol),
        ("link", &link),
        ("door", &door),
        ("origin", &origin),
        ("pattern", &PATTERN),
        ("private", &keys.private),
        ("public", &keys.public),
    ];
    let server = fill(dir, "server.toml", server, &values)?;
    let client = fill(dir, "client.toml", client, &values)?;
    let mut edge = Running::start(
        program,
        &["--server".as_ref(), server.as_os_str()],
        dir,
        "server",
    )?;
    edge.until("listening", async || TcpStream::connect(link).await.is_ok())
        .await?;
    let agent = programs.agent(
        program,
        &["--client".as_ref(), client.as_os_str()],
        dir,
        "client",
    )?;
    Ok((vec![agent, edge], door))
}

#[derive(Default)]
struct Keys {
    private: String,
    public: String,
}

impl Keys {
    async fn make(program: &Path) -> Result<Self, BenchError> {
        let output = tokio::process::Command::new(program)
            .arg("--genkey")
            .output()
            .await
            .map_err(BenchError::io("run rathole --genkey"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let after = |title: &str| {
            let mut lines = text.lines().skip_while(|line| !line.starts_with(title));
            lines.nth(1).map(|line| line.trim().to_owned())
        };
        match (after("Private"), after("Public")) {
            (Some(private), Some(public)) => Ok(Self { private, public }),
            _ => Err(BenchError::Failed(format!("rathole --genkey said: {text}"))),
        }
    }
}
