//! Bytes from one plain socket to another that never enter this process.
//!
//! Large bodies from a service that the edge itself reaches need nothing done
//! to them: the kernel moves its pages from one socket to the other through a
//! pipe (`splice(2)`).

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes that a pipe holds: enough for one turn of a worker.
const SIZE: usize = 256 * 1024;

/// Which socket failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// It ended or broke before everything came.
    From,
    /// It takes no more.
    To,
}

/// What is on its way.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
    held: usize,
}

impl Pipe {
    pub(crate) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // A user with many large pipes gets small ones.
        let size = fcntl_setpipe_size(&write, SIZE).unwrap_or(4096);
        Ok(Self {
            read,
            write,
            size,
            held: 0,
        })
    }

    /// Whether all that was taken has been handed on.
    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes bytes, `left` at most in all, and hands them on: how many arrived,
    /// 0 when none is left.
    pub(crate) fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&TcpStream, &TcpStream),
        left: &mut u64,
    ) -> Poll<Result<usize, Failed>> {
        loop {
            if self.held > 0 {
                let moved = to.try_io(Interest::WRITABLE, || pass(&self.read, to, self.held));
                match moved {
                    Ok(count @ 1..) => {
                        self.held -= count;
                        return Poll::Ready(Ok(count));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(to.poll_write_ready(cx)).map_err(|_| Failed::To)?;
                    }
                    _ => return Poll::Ready(Err(Failed::To)),
                }
                continue;
            }
            let most = usize::try_from(*left).unwrap_or(self.size).min(self.size);
            if most == 0 {
                return Poll::Ready(Ok(0));
            }
            match from.try_io(Interest::READABLE, || pass(from, &self.write, most)) {
                Ok(count @ 1..) => {
                    self.held = count;
                    *left -= count as u64;
                }
                // The pipe is empty: it is the socket that has nothing.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(from.poll_read_ready(cx)).map_err(|_| Failed::From)?;
                }
                _ => return Poll::Ready(Err(Failed::From)),
            }
        }
    }
}

fn pass(
    from: impl std::os::fd::AsFd,
    to: impl std::os::fd::AsFd,
    most: usize,
) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(splice(from, None, to, None, most, flags)?)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_go_past_this_process_and_no_others() {
        let ((from, mut service), (to, mut visitor)) = (pair().await, pair().await);
        let data: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 + n / 251) as u8).collect();
        let (mut pipe, mut left) = (Pipe::new().unwrap(), data.len() as u64);
        let pass = async {
            let mut moved = 0;
            loop {
                let step = poll_fn(|cx| pipe.poll_move(cx, (&from, &to), &mut left));
                match step.await.unwrap() {
                    0 => return moved,
                    count => moved += count,
                }
            }
        };
        let mut got = vec![0; data.len()];
        let (sent, read, moved) =
            tokio::join!(service.write_all(&data), visitor.read_exact(&mut got), pass);
        sent.unwrap();
        read.unwrap();
        assert!(moved == data.len() && got == data && left == 0 && pipe.is_empty());
        // What comes behind it stays where it is.
        service.write_all(b"next").await.unwrap();
        from.readable().await.unwrap();
        let step = poll_fn(|cx| pipe.poll_move(cx, (&from, &to), &mut left));
        assert_eq!(step.await, Ok(0));
        let mut next = [0; 4];
        assert_eq!(from.try_read(&mut next).unwrap(), 4);
    }

    #[tokio::test]
    async fn a_socket_that_ends_early_is_told_apart() {
        let ((from, service), (to, visitor)) = (pair().await, pair().await);
        let (mut pipe, mut left) = (Pipe::new().unwrap(), 10);
        drop(service);
        let step = poll_fn(|cx| pipe.poll_move(cx, (&from, &to), &mut left)).await;
        assert_eq!(step, Err(Failed::From));

        let (from, mut service) = pair().await;
        let (mut pipe, mut left) = (Pipe::new().unwrap(), u64::MAX);
        drop(visitor);
        let feed = async { while service.write_all(&[1; 60_000]).await.is_ok() {} };
        let pass = async {
            loop {
                let step = poll_fn(|cx| pipe.poll_move(cx, (&from, &to), &mut left));
                if let Err(failed) = step.await {
                    return failed;
                }
            }
        };
        let failed = tokio::select! {
            failed = pass => failed,
            () = feed => Failed::From,
        };
        assert_eq!(failed, Failed::To);
    }
}
