//! The door's own answers: the one place that writes them.
//!
//! Invariant: none of them names the product, has a body (the sealed
//! statistics apart) or tells a stranger more than its status does.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use adit_http1::Version;

/// What an answer carries besides its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extra<'a> {
    Nothing,
    /// Seconds after which another try makes sense.
    RetryAfter(u64),
    /// Asks for user name and password.
    Authenticate,
    /// Where to go instead.
    Location(&'a [u8]),
    /// An octet stream.
    Body(&'a [u8]),
}

/// What happens to the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct After {
    pub(super) keep_alive: bool,
    pub(super) visitor: Version,
}

impl After {
    /// The connection ends.
    pub(super) const CLOSE: Self = Self {
        keep_alive: false,
        visitor: Version::Http11,
    };
}

/// Appends an answer of the door.
pub(super) fn answer(out: &mut Vec<u8>, status: u16, extra: Extra<'_>, after: After) {
    put(
        out,
        &["HTTP/1.1 ", &status.to_string(), " ", reason(status)],
    );
    out.extend_from_slice(b"\r\nDate: ");
    out.extend_from_slice(&date());
    let mut body: &[u8] = b"";
    match extra {
        Extra::Nothing if status == 405 => {
            put(
                out,
                &["\r\nAllow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"],
            );
        }
        Extra::Nothing => {}
        Extra::RetryAfter(seconds) => put(out, &["\r\nRetry-After: ", &seconds.to_string()]),
        Extra::Authenticate => put(
            out,
            &["\r\nWWW-Authenticate: Basic realm=\"restricted\", charset=\"UTF-8\""],
        ),
        Extra::Location(location) => {
            out.extend_from_slice(b"\r\nLocation: ");
            out.extend_from_slice(location);
        }
        Extra::Body(bytes) => {
            body = bytes;
            put(
                out,
                &["\r\nContent-Type: application/octet-stream\r\nCache-Control: no-store"],
            );
        }
    }
    put(out, &["\r\nContent-Length: ", &body.len().to_string()]);
    match after {
        After {
            keep_alive: false, ..
        } => put(out, &["\r\nConnection: close"]),
        After {
            visitor: Version::Http10,
            ..
        } => put(out, &["\r\nConnection: keep-alive"]),
        After { .. } => {}
    }
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

thread_local! {
    static DATE: Cell<(u64, [u8; 29])> = const { Cell::new((u64::MAX, [b' '; 29])) };
}

/// Now, as a Date field has it (RFC 9110 §5.6.7).
pub(super) fn date() -> [u8; 29] {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let (second, text) = DATE.get();
    if second == unix {
        return text;
    }
    let text = imf_fixdate(unix);
    DATE.set((unix, text));
    text
}

fn imf_fixdate(unix: u64) -> [u8; 29] {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let days = unix / 86_400;
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (unix / 3600 % 24, unix / 60 % 60, unix % 60);
    let weekday = usize::try_from(days % 7).map_or("", |d| DAYS[d]);
    let month = usize::try_from(month - 1).map_or("", |m| MONTHS[m]);
    let text =
        format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT");
    text.as_bytes().try_into().unwrap_or([b' '; 29])
}

/// Year, month and day of a number of days since 1970-01-01, by the method of
/// eras of 400 years that begin in March.
pub(crate) fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        let at = |unix| String::from_utf8(imf_fixdate(unix).to_vec()).unwrap();
        assert_eq!(at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(at(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(at(4_107_542_399), "Sun, 28 Feb 2100 23:59:59 GMT");
    }

    #[test]
    fn answers_are_bare() {
        let mut out = Vec::new();
        answer(&mut out, 404, Extra::Nothing, After::CLOSE);
        let text = String::from_utf8(out).unwrap();
        let (first, rest) = text.split_once("\r\nDate: ").unwrap();
        assert_eq!(first, "HTTP/1.1 404 Not Found");
        assert_eq!(
            &rest[29..],
            "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn every_status_has_its_words() {
        for status in [
            200, 308, 400, 401, 403, 404, 405, 408, 413, 414, 417, 421, 429, 431, 502, 503, 504,
            505,
        ] {
            assert!(!reason(status).is_empty(), "{status}");
        }
    }
}
