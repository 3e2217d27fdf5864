use std::net::SocketAddr;
use std::{env, fs};

use tokio::net::TcpStream;

use crate::datagrams;
use crate::error::BenchError;
use crate::far::Sides;
use crate::locate;
use crate::process::Running;
use crate::workshop::{Workshop, fill, free};

/// Bytes of the small answer.
pub(crate) const SMALL: usize = 1024;
/// Bytes of the large answer: a download ends soon after its time is up even
/// in a slow subject.
pub(crate) const LARGE: usize = 64 << 20;

/// The one nginx that all subjects lead to.
#[derive(Debug)]
pub(crate) struct Origin {
    process: Running,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Origin {
    /// Writes its files and waits until it listens.
    pub(crate) async fn start(workshop: &Workshop, sides: &Sides) -> Result<Self, BenchError> {
        let nginx = locate::system("nginx", "nginx-light")?;
        let dir = workshop.folder("origin")?;
        let www = workshop.folder("origin/www")?;
        for (name, bytes) in [
            ("small", noise(SMALL)),
            ("large", noise(LARGE)),
            ("text", text(LARGE)),
        ] {
            let path = www.join(name);
            fs::write(&path, bytes).map_err(BenchError::io(format!("write {}", path.display())))?;
        }
        let address = SocketAddr::new(sides.service, free()?.port());
        let template = include_str!("../peers/nginx.conf");
        let values: [(&str, &dyn std::fmt::Display); 2] =
            [("dir", &dir.display()), ("origin", &address)];
        let file = fill(&dir, "nginx.conf", template, &values)?;
        let arguments = [
            "-p",
            &dir.display().to_string(),
            "-c",
            &file.display().to_string(),
        ];
        let mut process = Running::start_by(&sides.words, &nginx, &arguments, &dir, "nginx")?;
        process
            .until("listening", async || {
                TcpStream::connect(address).await.is_ok()
            })
            .await?;
        Ok(Self { process, address })
    }

    /// Ends it.
    pub(crate) async fn stop(self) {
        self.process.stop().await;
    }
}

/// The one UDP service: this program, saying everything back.
#[derive(Debug)]
pub(crate) struct Echo {
    process: Running,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Echo {
    /// Starts it and waits until it answers.
    pub(crate) async fn start(workshop: &Workshop, sides: &Sides) -> Result<Self, BenchError> {
        let program = env::current_exe().map_err(BenchError::io("find this program"))?;
        let dir = workshop.folder("origin")?;
        let address = SocketAddr::new(sides.service, free()?.port());
        let arguments = ["echo".to_owned(), address.to_string()];
        let mut process = Running::start_by(&sides.words, &program, &arguments, &dir, "echo")?;
        let answers = async || datagrams::passes(address).await;
        process.until("answering", answers).await?;
        Ok(Self { process, address })
    }

    /// Ends it.
    pub(crate) async fn stop(self) {
        self.process.stop().await;
    }
}

/// Lines of a log, as a person or a program would fetch them.
fn text(size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 128);
    let mut numbers = noise(8 * 4096).into_iter().cycle();
    while bytes.len() < size {
        let mut next = || usize::from(numbers.next().unwrap_or_default());
        let word = ["index", "images/logo", "api/items", "login", "search"][next() % 5];
        let line = format!(
            "192.0.2.{} - - [01/Mar/2026:12:{:02}:{:02} +0000] \"GET /{word}/{} HTTP/1.1\" {} {}\n",
            next(),
            next() % 60,
            next() % 60,
            next() * next(),
            [200, 200, 200, 304, 404][next() % 5],
            next() * 100 + next(),
        );
        bytes.extend_from_slice(line.as_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Bytes that do not compress, the same in every run.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
