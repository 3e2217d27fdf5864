//! A socket in a data folder, at which a process answers its owner.
//!
//! One line is asked and one is answered; then the connection ends. What the
//! lines mean, whoever listens says. The socket has mode 0600, and only the
//! process's own user and root are answered.
//!
//! Invariant: connections are bounded in size, number and time.

use std::future::Future;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::tasks::Tasks;

/// Most bytes of a question.
const MAX_QUESTION: u64 = 16 * 1024;
/// Most bytes of an answer that are taken.
const MAX_ANSWER: u64 = 64 << 20;
/// Connections at a time.
const MAX_CONNECTIONS: usize = 16;
/// Time for a question to arrive and for its answer to be taken.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pause after a failed accept: descriptors may be free then.
const PAUSE: Duration = Duration::from_millis(50);
/// Most bytes that are read and thrown away after an answer.
const MAX_LINGER: usize = 256 * 1024;

/// A path of at most a few dozen bytes to a file in a folder, whatever the
/// folder's own: a Unix socket's address has 108 bytes (unix(7)). Valid while
/// `folder`, which is open at `path`, stays open.
#[must_use]
pub fn short_path(folder: BorrowedFd<'_>, path: &Path, name: &str) -> PathBuf {
    if cfg!(target_os = "linux") {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
    } else {
        path.join(name)
    }
}

/// Listens at a path where nothing is yet. Nobody can connect between `bind`
/// and `listen`, so that the mode is right before the first connection.
///
/// # Errors
/// The system's words.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.listen(16)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

/// Answers until the tasks stop; `after` is called then.
pub fn serve<F>(
    tasks: &Tasks,
    listener: UnixListener,
    answer: impl Fn(Vec<u8>) -> F + Clone + Send + Sync + 'static,
    after: impl FnOnce() + Send + 'static,
) where
    F: Future<Output = String> + Send + 'static,
{
    let (owner, stop) = (tasks.clone(), tasks.stopping().clone());
    tasks.spawn(async move {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Some(Ok(place)) = stop
            .run_until_cancelled(Arc::clone(&places).acquire_owned())
            .await
        {
            match stop.run_until_cancelled(listener.accept()).await {
                None => break,
                Some(Ok((socket, _))) => {
                    let answer = answer.clone();
                    owner.spawn_until_stopped(async move {
                        let _place = place;
                        let _ = timeout(DEADLINE, converse(socket, answer)).await;
                    });
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "the control socket could not accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        after();
    });
}

async fn converse<F: Future<Output = String>>(
    mut socket: UnixStream,
    answer: impl Fn(Vec<u8>) -> F,
) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let peer = socket.peer_cred()?.uid();
    if peer != user && peer != 0 {
        return Ok(());
    }
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut limited = (&mut socket).take(MAX_QUESTION - line.len() as u64);
        if limited.read_buf(&mut line).await? == 0 {
            break;
        }
    }
    let answer = answer(line).await;
    socket.write_all(format!("{answer}\n").as_bytes()).await?;
    socket.shutdown().await?;
    linger(&mut socket).await
}

/// Reads and throws away a bounded rest of what the peer sends, so that an
/// answer arrives before a reset does.
///
/// # Errors
/// The socket's.
pub async fn linger(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut left = MAX_LINGER;
    let mut rest = [0; 4096];
    while left > 0 {
        match socket.read(&mut rest).await? {
            0 => break,
            n => left = left.saturating_sub(n),
        }
    }
    Ok(())
}

/// Whether a process listens at a path. Waits for nobody: one that takes no
/// more connections listens too.
///
/// # Errors
/// There is none: [`io::ErrorKind::NotFound`] without a socket,
/// [`io::ErrorKind::ConnectionRefused`] where a dead process left one; others
/// as the system says.
pub fn probe(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// Asks a line and takes the answer's. Blocks, at most `patience` for each
/// step.
///
/// # Errors
/// The system's words.
pub fn ask(path: &Path, question: &[u8], patience: Duration) -> io::Result<String> {
    let mut socket = connect(path, patience)?;
    socket.write_all(&[question, b"\n"].concat())?;
    let mut answer = String::new();
    BufReader::new(socket.take(MAX_ANSWER)).read_line(&mut answer)?;
    Ok(answer)
}

fn connect(path: &Path, patience: Duration) -> io::Result<Blocking> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Bounds the wait for a listener that is stuck, too (socket(7)).
    socket.set_write_timeout(Some(patience))?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_is_answered_with_a_line_until_the_end() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("one.sock");
        let listener = bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let tasks = Tasks::new();
        let echo = async |line: Vec<u8>| String::from_utf8_lossy(&line).trim().to_uppercase();
        let gone = path.clone();
        serve(&tasks, listener, echo, move || {
            std::fs::remove_file(gone).unwrap();
        });
        let at = path.clone();
        let asked = move || {
            probe(&at).unwrap();
            ask(&at, b"hello", DEADLINE).unwrap()
        };
        let answer = tokio::task::spawn_blocking(asked).await.unwrap();
        assert_eq!(answer, "HELLO\n");
        assert!(tasks.close(Duration::from_secs(5)).await);
        let none = probe(&path).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
        drop(bind(&path).unwrap());
        let dead = probe(&path).unwrap_err();
        assert_eq!(dead.kind(), io::ErrorKind::ConnectionRefused);
    }
}
