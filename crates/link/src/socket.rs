//! Options that every socket of a link gets.

use std::io;
use std::time::Duration;

use adit_link_proto::Suites;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Sets what a link's socket needs: no delay, keep-alive, and BBR where the
/// kernel allows it (at 1 % loss it carries thirty times as much as the usual
/// default). Within this machine nothing is lost, and its pacing would only
/// cost.
///
/// Not `TCP_USER_TIMEOUT`: it ends a connection whose reader is merely paused,
/// acknowledged or not, and a link that is dead is noticed by its heartbeats,
/// which end all of its streams.
///
/// # Errors
/// The system's, for what cannot be done without.
pub fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let is_local = socket.peer_addr()?.ip().to_canonical().is_loopback();
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(30)))?;
    #[cfg(target_os = "linux")]
    {
        if !is_local {
            // Absent on many kernels; the default is then as good as it gets.
            let _ = socket.set_tcp_congestion(b"bbr");
        }
    }
    Ok(())
}

/// The suites that this machine can do well.
#[must_use]
pub fn suites() -> Suites {
    #[cfg(target_arch = "x86_64")]
    let aes = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let aes = false;
    Suites { aes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_reader_may_pause_for_as_long_as_it_likes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = TcpStream::connect(address).await.unwrap();
        prepare(&socket).unwrap();
        let socket = SockRef::from(&socket);
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
        assert!(socket.keepalive().unwrap());
    }
}
