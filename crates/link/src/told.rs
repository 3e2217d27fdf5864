//! What the system tells of sockets, in what its errors mean.

use std::io;

use adit_model::Code;

/// Why a listener gave no connection; `None` when that is about the one
/// connection alone, which was gone before it was accepted.
#[must_use]
pub fn not_accepted(error: &io::Error) -> Option<Code> {
    let is_about_one = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    );
    (!is_about_one).then_some(if is_used_up(error) {
        Code::DESCRIPTORS
    } else {
        Code::DOOR_LOST
    })
}

/// Whether this process or the whole machine has no descriptor left.
#[cfg(unix)]
fn is_used_up(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let all_used = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    all_used.contains(&error.raw_os_error())
}

#[cfg(not(unix))]
fn is_used_up(_: &io::Error) -> bool {
    false
}

/// Whether a datagram was not sent because it is larger than its network takes.
#[must_use]
pub fn is_too_large(error: &io::Error) -> bool {
    #[cfg(unix)]
    let number = rustix::io::Errno::MSGSIZE.raw_os_error();
    // WSAEMSGSIZE
    #[cfg(not(unix))]
    let number = 10_040;
    error.raw_os_error() == Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_up_descriptors_are_told_apart() {
        let told = |number| not_accepted(&io::Error::from_raw_os_error(number));
        assert_eq!(told(24), Some(Code::DESCRIPTORS));
        assert_eq!(told(23), Some(Code::DESCRIPTORS));
        assert_eq!(told(12), Some(Code::DOOR_LOST));
        let gone = io::ErrorKind::ConnectionAborted.into();
        assert_eq!(not_accepted(&gone), None);
    }
}
