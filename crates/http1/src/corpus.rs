//! The table of hostile requests (`corpus/requests.txt`) for tests: of the
//! grammar here, and of a running door with a backend that records what it
//! saw.

/// One request, or several on one connection, and what must become of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// A unique name.
    pub name: String,
    /// What is tried.
    pub row: String,
    /// The bytes to send; their host is `app.example.test`.
    pub send: Vec<u8>,
    /// The statuses that come back, in order.
    pub status: Vec<u16>,
    /// What the backend must have read.
    pub sees: Vec<Vec<u8>>,
    /// What the backend must not have read, in any case of letters.
    pub lacks: Vec<Vec<u8>>,
}

impl Case {
    /// How many requests reach the backend.
    #[must_use]
    pub fn forwarded(&self) -> usize {
        self.status.iter().filter(|s| **s < 400).count()
    }

    /// What is wrong with what a backend read, if anything.
    #[must_use]
    pub fn complaint(&self, read: &[u8]) -> Option<String> {
        let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let has = |text: &[u8], part: &[u8]| text.windows(part.len()).any(|w| w == part);
        let missing = self.sees.iter().find(|part| !has(read, part));
        if let Some(part) = missing {
            return Some(format!("{} is missing in {}", show(part), show(read)));
        }
        let lower = read.to_ascii_lowercase();
        let leaked = self
            .lacks
            .iter()
            .find(|part| has(&lower, &part.to_ascii_lowercase()));
        leaked.map(|part| format!("{} leaked into {}", show(part), show(read)))
    }
}

/// All cases of the table.
///
/// # Errors
/// The first line that is not understood.
pub fn cases() -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    let text = include_str!("../corpus/requests.txt");
    for line in text
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            cases.push(Case {
                name: name.into(),
                ..Case::default()
            });
            continue;
        }
        let (key, value) = line.split_once('=').ok_or(line)?;
        let value = value.strip_prefix(' ').unwrap_or(value);
        let case = cases.last_mut().ok_or(line)?;
        match key.trim() {
            "row" => case.row = value.into(),
            "send" => case.send.extend(unescape(value).ok_or(line)?),
            "status" => {
                let parsed: Result<_, _> = value.split(' ').map(str::parse).collect();
                case.status = parsed.map_err(|_| line)?;
            }
            "sees" => case.sees.push(unescape(value).ok_or(line)?),
            "lacks" => case.lacks.push(unescape(value).ok_or(line)?),
            _ => return Err(line.into()),
        }
    }
    Ok(cases)
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match (byte, byte == b'\\') {
            (_, false) => byte,
            _ => match bytes.next()? {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                b'\\' => b'\\',
                b'x' => {
                    let digit = |b: u8| char::from(b).to_digit(16);
                    let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                    u8::try_from(high * 16 + low).ok()?
                }
                _ => return None,
            },
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, Forwarding, Limits, Refusal, RequestHead, Trailers, Upgrade};

    const FACTS: Forwarding<'static> = Forwarding {
        host: None,
        peer: "192.0.2.7",
        client: "192.0.2.7",
        hops: 0,
        trusted: false,
        scheme: "http",
        request_id: b"id1",
        upgrade: false,
        drop_authorization: false,
    };

    /// One request off the front of `input`: what a backend would read and
    /// how much was used; `None` when there is no whole request.
    fn one(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Refusal> {
        let mut head = RequestHead::default();
        if !head.parse(input, &Limits::default())? {
            return Ok(None);
        }
        let request = head.view(input);
        let facts = Forwarding {
            upgrade: request.upgrade() == Upgrade::WebSocket,
            ..FACTS
        };
        let mut out = Vec::new();
        crate::write_request(&mut out, &request, &facts);
        let (mut body, mut at) = (Body::new(request.framing()), head.length());
        let chunked = request.framing() == crate::Framing::Chunked;
        while !body.is_done() {
            let step = body.decode(&input[at..])?;
            let data = &input[at..][step.data.clone()];
            if chunked && !data.is_empty() {
                crate::write_chunk_head(&mut out, data.len());
            }
            out.extend_from_slice(data);
            if chunked && !data.is_empty() {
                out.extend_from_slice(crate::CHUNK_END);
            }
            if step.done && chunked {
                let section = step
                    .trailers
                    .clone()
                    .map_or(&b"\r\n"[..], |r| &input[at..][r]);
                let mut trailers = Trailers::default();
                trailers.parse(section)?;
                crate::write_trailers(&mut out, &trailers, section);
            }
            at += step.consumed;
            if step.consumed == 0 && !step.done {
                return Ok(None);
            }
        }
        Ok(Some((out, at)))
    }

    #[test]
    fn every_case_ends_as_the_table_says() {
        let cases = cases().unwrap();
        assert!(cases.len() >= 60);
        for case in &cases {
            let (mut status, mut read, mut at) = (vec![], vec![], 0);
            while at < case.send.len() {
                match one(&case.send[at..]) {
                    Ok(Some((seen, used))) => {
                        status.push(200);
                        read.extend(seen);
                        at += used;
                    }
                    Ok(None) => break,
                    Err(refusal) => {
                        status.push(refusal.status());
                        break;
                    }
                }
            }
            assert_eq!(status, case.status, "{}", case.name);
            assert_eq!(case.complaint(&read), None, "{}", case.name);
        }
    }

    #[test]
    fn names_are_unique_and_rows_have_spellings() {
        let cases = cases().unwrap();
        let mut names: Vec<_> = cases.iter().map(|c| &c.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), cases.len());
        let rows: std::collections::HashSet<_> = cases.iter().map(|c| &c.row).collect();
        for row in rows {
            assert!(cases.iter().filter(|c| c.row == *row).count() >= 2, "{row}");
        }
    }
}
