//! A real visitor: curl.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::peers::program;
use crate::process::{Ended, Process};

/// What curl got.
#[derive(Debug)]
pub struct Reply {
    /// The status of the final response.
    pub status: u16,
    /// Its header lines as they came, interim responses' left out.
    pub headers: Vec<(String, String)>,
    /// Its body as text, without the line break at its end.
    pub body: String,
}

impl Reply {
    /// The first header of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// curl, prepared for one door: every host name leads to its address.
#[must_use]
pub fn command(door: SocketAddr) -> Command {
    let mut command = Command::new(program("curl"));
    command
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--noproxy",
            "*",
        ])
        .args(["--connect-to", &format!("::{door}")]);
    command
}

/// GET of a URL through the door.
///
/// # Panics
/// When curl gets no response.
#[must_use]
pub fn get(door: SocketAddr, url: &str) -> Reply {
    request(door, &[url])
}

/// A request with more of curl's arguments, the URL among them.
///
/// # Panics
/// When curl gets no response.
#[must_use]
pub fn request(door: SocketAddr, arguments: &[&str]) -> Reply {
    let ended = attempt(door, arguments);
    assert!(
        ended.status.success(),
        "curl {arguments:?} failed: {}",
        ended.text()
    );
    reply(&ended.lines)
}

/// GET of a URL into a file.
///
/// # Panics
/// When it does not arrive whole.
pub fn download(door: SocketAddr, url: &str, file: &Path) {
    let mut command = command(door);
    command.arg("--fail").arg("--output").arg(file).arg(url);
    let ended = Process::run(command);
    assert!(ended.status.success(), "{url}: {}", ended.text());
}

/// The same for a request that may fail.
#[must_use]
pub fn attempt(door: SocketAddr, arguments: &[&str]) -> Ended {
    let mut command = command(door);
    command.arg("--include").args(arguments);
    Process::run(command)
}

fn reply(lines: &[String]) -> Reply {
    let mut lines = lines.iter();
    let mut status = 0;
    let mut headers = Vec::new();
    // An interim response (100) stands before the final one.
    while status < 200 {
        let first = lines.next().expect("a status line");
        let code = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        status = code.unwrap_or_else(|| panic!("a status line, not {first:?}"));
        headers = lines
            .by_ref()
            .map(|line| line.trim_end_matches('\r'))
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        if status == 101 {
            break;
        }
    }
    let body: Vec<&str> = lines.map(String::as_str).collect();
    Reply {
        status,
        headers,
        body: body.join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_response_is_read_behind_interim_ones() {
        let text =
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nA: b\r\nC:d\r\n\r\none\ntwo";
        let lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
        let reply = reply(&lines);
        assert_eq!(reply.status, 201);
        assert_eq!(reply.header("a"), Some("b"));
        assert_eq!(reply.header("c"), Some("d"));
        assert_eq!(reply.body, "one\ntwo");
    }
}
