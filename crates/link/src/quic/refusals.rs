//! A door's socket that hears which of its datagrams were refused.
//!
//! Linux keeps ICMP errors for a socket that asks for them, in a queue of its
//! own, and tells the last one once more to whoever sends or receives next,
//! whatever it is about: such a call is made again. No error of a datagram is
//! one of the socket.

#[cfg(target_os = "linux")]
pub(super) use on_linux::wrap;

/// Elsewhere nothing is heard.
#[cfg(not(target_os = "linux"))]
pub(super) fn wrap(
    socket: std::net::UdpSocket,
    _: &std::sync::Arc<super::life::Hints>,
    _: &crate::tasks::Tasks,
) -> std::io::Result<std::sync::Arc<dyn quinn::AsyncUdpSocket>> {
    quinn::Runtime::wrap_udp_socket(&quinn::TokioRuntime, socket)
}

#[cfg(target_os = "linux")]
mod on_linux {
    use std::fmt;
    use std::io::{self, IoSliceMut};
    use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
    use std::os::fd::AsRawFd;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll, ready};
    use std::time::Duration;

    use nix::libc;
    use nix::sys::socket::{
        ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
    };
    use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
    use quinn::{AsyncUdpSocket, UdpPoller};
    use tokio::io::Interest;
    use tokio::net::UdpSocket;
    use tokio_util::sync::{CancellationToken, DropGuard};

    use crate::quic::life::Hints;
    use crate::tasks::Tasks;

    /// Errors that are read before others have their turn.
    const AT_ONCE: usize = 32;
    /// What an error may say beside its own facts: address and class of the
    /// datagram.
    const ROOM: usize = 512;
    /// How often a datagram is sent again for errors that are not its own.
    const AGAIN: usize = 3;
    /// How long a socket is left alone that takes nothing and cannot say when
    /// it does again.
    const FULL: Duration = Duration::from_millis(1);

    /// The socket of a door, whose refusals go to `hints`.
    pub(in crate::quic) fn wrap(
        socket: std::net::UdpSocket,
        hints: &Arc<Hints>,
        tasks: &Tasks,
    ) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let state = UdpSocketState::new((&socket).into())?;
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        if socket.local_addr()?.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        }
        let io = Arc::new(UdpSocket::from_std(socket)?);
        let dropped = CancellationToken::new();
        let (hearing, hints, until) = (Arc::clone(&io), Arc::clone(hints), dropped.clone());
        tasks.spawn_until_stopped(async move {
            until.run_until_cancelled(hear(&hearing, &hints)).await;
        });
        Ok(Arc::new(Door {
            io,
            state,
            is_full: AtomicBool::new(false),
            _dropped: dropped.drop_guard(),
        }))
    }

    /// Until the runtime ends.
    async fn hear(io: &UdpSocket, hints: &Hints) {
        while io.ready(Interest::ERROR).await.is_ok() {
            for _ in 0..AT_ONCE {
                match io.try_io(Interest::ERROR, || next(io)) {
                    Ok(Some(address)) => hints.tell(address),
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// The next error that waits; whose port is closed, if it says that.
    fn next(io: &UdpSocket) -> io::Result<Option<SocketAddr>> {
        let mut room = vec![0; ROOM];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let found = recvmsg::<SockaddrStorage>(io.as_raw_fd(), &mut [], Some(&mut room), flags)
            .map_err(|_| io::ErrorKind::WouldBlock)?;
        let is_closed = found.cmsgs().is_ok_and(|mut all| {
            all.any(|one| match one {
                ControlMessageOwned::Ipv4RecvErr(error, _)
                | ControlMessageOwned::Ipv6RecvErr(error, _) => says_closed(&error),
                _ => false,
            })
        });
        Ok(found.address.filter(|_| is_closed).as_ref().and_then(plain))
    }

    fn says_closed(error: &libc::sock_extended_err) -> bool {
        let icmp = [libc::SO_EE_ORIGIN_ICMP, libc::SO_EE_ORIGIN_ICMP6];
        icmp.contains(&error.ee_origin) && error.ee_errno.cast_signed() == libc::ECONNREFUSED
    }

    fn plain(address: &SockaddrStorage) -> Option<SocketAddr> {
        if let Some(v4) = address.as_sockaddr_in() {
            return Some(SocketAddrV4::new(v4.ip(), v4.port()).into());
        }
        let v6 = address.as_sockaddr_in6()?;
        let ip: Ipv6Addr = v6.ip();
        Some(SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into())
    }

    struct Door {
        io: Arc<UdpSocket>,
        state: UdpSocketState,
        /// It took nothing the last time.
        is_full: AtomicBool,
        _dropped: DropGuard,
    }

    impl Door {
        fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            self.io.try_io(Interest::WRITABLE, || {
                self.state.try_send((&*self.io).into(), transmit)
            })
        }

        async fn writable(&self) -> io::Result<()> {
            let ready = self.io.ready(Interest::WRITABLE).await?;
            // Said of a socket since its first error, and never taken back.
            if ready.is_write_closed() {
                tokio::time::sleep(FULL).await;
            }
            Ok(())
        }
    }

    impl fmt::Debug for Door {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Door")
        }
    }

    impl AsyncUdpSocket for Door {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(Poller {
                door: self,
                waiting: None,
            })
        }

        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            let is_full = |sent: &io::Result<()>| matches!(sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            let mut sent = self.send(transmit);
            for _ in 0..AGAIN {
                if sent.is_ok() || is_full(&sent) {
                    break;
                }
                sent = self.send(transmit);
            }
            if is_full(&sent) {
                self.is_full.store(true, Ordering::Relaxed);
                return sent;
            }
            // One that cannot be sent is lost, as on any network.
            Ok(())
        }

        fn poll_recv(
            &self,
            cx: &mut Context<'_>,
            bufs: &mut [IoSliceMut<'_>],
            meta: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            loop {
                ready!(self.io.poll_recv_ready(cx))?;
                let received = self.io.try_io(Interest::READABLE, || {
                    self.state.recv((&*self.io).into(), bufs, meta)
                });
                if let Ok(count) = received {
                    return Poll::Ready(Ok(count));
                }
            }
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            self.io.local_addr()
        }

        fn max_transmit_segments(&self) -> usize {
            self.state.max_gso_segments()
        }

        fn max_receive_segments(&self) -> usize {
            self.state.gro_segments()
        }

        fn may_fragment(&self) -> bool {
            self.state.may_fragment()
        }
    }

    /// Waits for one sender until the socket takes something.
    struct Poller {
        door: Arc<Door>,
        waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
    }

    impl fmt::Debug for Poller {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Poller")
        }
    }

    impl UdpPoller for Poller {
        fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.waiting.is_none() && !self.door.is_full.swap(false, Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            let door = Arc::clone(&self.door);
            let wait = || Box::pin(async move { door.writable().await }) as _;
            let ready = ready!(self.waiting.get_or_insert_with(wait).as_mut().poll(cx));
            self.waiting = None;
            Poll::Ready(ready)
        }
    }
}
