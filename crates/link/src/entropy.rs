//! Random bytes from the system, through one function.

use std::io;

/// `N` random bytes.
///
/// # Errors
/// When the system has no random source; nothing that needs one may go on.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random source"))?;
    Ok(bytes)
}
