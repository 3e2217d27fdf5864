//! Finds the end of a head without reading a byte twice.

/// Why a scan stopped for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScanError {
    /// A line feed without its carriage return.
    BareLf,
    /// A second empty line before the start line, or a byte that no start
    /// line begins with.
    Start,
    /// No end within the limit.
    TooLarge,
    /// The first line alone is beyond its limit.
    LineTooLong,
}

/// Where the scan of a growing head stands; [`HeadScan::default`] for each
/// new message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeadScan {
    /// Bytes already looked at.
    at: usize,
    /// One past the last line feed seen.
    line: usize,
    /// Bytes of one empty line before the start line (RFC 9112 §2.2 lets a
    /// client send it after an earlier body): 0 or 2.
    skipped: usize,
}

/// What a scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Offset of the start line.
    pub(crate) start: usize,
    /// One past the empty line that ends the head.
    pub(crate) end: usize,
}

impl HeadScan {
    /// Looks for the end of the head that `bytes` begins with. `bytes` must
    /// begin with the bytes of the call before and may have grown.
    pub(crate) fn find(
        &mut self,
        bytes: &[u8],
        head_limit: usize,
        line_limit: usize,
    ) -> Result<Option<Found>, ScanError> {
        check_start(bytes)?;
        while let Some(step) = bytes
            .get(self.at..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
        {
            let feed = self.at + step;
            if feed == 0 || bytes.get(feed - 1) != Some(&b'\r') {
                return Err(ScanError::BareLf);
            }
            let empty = feed - 1 == self.line;
            let first = self.line == self.skipped;
            if first && !empty && feed - self.line > line_limit {
                return Err(ScanError::LineTooLong);
            }
            self.at = feed + 1;
            self.line = feed + 1;
            if empty && first {
                if self.skipped > 0 {
                    return Err(ScanError::Start);
                }
                self.skipped = 2;
            } else if empty {
                if self.at - self.skipped > head_limit {
                    return Err(ScanError::TooLarge);
                }
                return Ok(Some(Found {
                    start: self.skipped,
                    end: self.at,
                }));
            }
        }
        self.at = bytes.len();
        if self.line == self.skipped && bytes.len() - self.line.min(bytes.len()) > line_limit {
            return Err(ScanError::LineTooLong);
        }
        if bytes.len() > head_limit {
            return Err(ScanError::TooLarge);
        }
        Ok(None)
    }
}

/// A start line begins with a letter or another token character: what does
/// not (a TLS hello, an empty line too many) need not wait for its end.
fn check_start(bytes: &[u8]) -> Result<(), ScanError> {
    let start = match bytes {
        [b'\n', ..] => return Err(ScanError::BareLf),
        [b'\r', b'\n', start, ..] | [start, ..] => *start,
        [] => return Ok(()),
    };
    if start == b'\r' && bytes.len() < 3 || crate::name::is_token_byte(start) {
        Ok(())
    } else {
        Err(ScanError::Start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(bytes: &[u8]) -> Result<Option<Found>, ScanError> {
        HeadScan::default().find(bytes, 64, 32)
    }

    #[test]
    fn one_empty_line_before_the_start_is_skipped() {
        let found = find(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest").unwrap();
        assert_eq!(found, Some(Found { start: 2, end: 29 }));
        assert_eq!(find(b"\r\n\r\nGET"), Err(ScanError::Start));
        assert_eq!(find(b"\r\n\r"), Err(ScanError::Start));
        assert_eq!(find(b"\r\n"), Ok(None));
        assert_eq!(find(b"\r"), Ok(None));
    }

    #[test]
    fn a_bare_line_feed_is_seen_anywhere() {
        for bytes in [
            &b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            b"\nGET / HTTP/1.1\r\n",
        ] {
            assert_eq!(find(bytes), Err(ScanError::BareLf));
        }
    }

    #[test]
    fn limits_hold_before_and_at_the_end() {
        assert_eq!(find(&[b'a'; 33]), Err(ScanError::LineTooLong));
        assert_eq!(find(&[b'a'; 32]), Ok(None));
        let mut long = b"GET / HTTP/1.1\r\n".to_vec();
        long.extend_from_slice(&[b'b'; 60]);
        assert_eq!(find(&long), Err(ScanError::TooLarge));
        assert_eq!(find(b"\x16\x03\x01"), Err(ScanError::Start));
    }

    #[test]
    fn the_pieces_do_not_matter() {
        let whole = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut scan = HeadScan::default();
        for n in 0..whole.len() {
            assert_eq!(scan.find(&whole[..n], 64, 32), Ok(None), "{n}");
        }
        let end = scan.find(whole, 64, 32).unwrap().map(|f| f.end);
        assert_eq!(end, Some(whole.len()));
    }
}
