//! HTTP/1: heads and bodies have one reading, in whatever pieces they arrive,
//! and what is written from them is read as the same.

use adit_fuzz::{holds, target};
use adit_http1::{
    Body, Forwarding, Framing, Limits, Request, RequestHead, ResponseHead, ResponseOptions,
    Trailers, Upgrade, Version, client_address, write_chunk_head, write_request, write_response,
    write_trailers,
};

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

/// Every request that a hostile visitor could send, from the table of known
/// attacks.
#[test]
fn the_corpus_has_every_known_attack() {
    for case in adit_http1::corpus::cases().unwrap() {
        holds("requests", &case.name, &case.send);
    }
}

#[test]
fn request_heads() {
    target("requests", |input| {
        let limits = Limits::default();
        let mut head = RequestHead::default();
        let whole = head.parse(input, &limits);
        assert_eq!(
            grown(input, |part, fresh| {
                let mut head: RequestHead = fresh.unwrap_or_default();
                (head.parse(part, &limits), head)
            }),
            whole.map_err(|_| ()),
            "read in pieces"
        );
        if whole == Ok(true) {
            let request = head.view(input);
            forwarded_once(&request);
        }
    });
}

/// Parses a text as it grows, as a socket delivers it; the state is kept.
fn grown<S, E>(
    input: &[u8],
    mut parse: impl FnMut(&[u8], Option<S>) -> (Result<bool, E>, S),
) -> Result<bool, ()> {
    let step = 1 + input.len() / 7;
    let mut state = None;
    let mut end = 0;
    loop {
        end = (end + step).min(input.len());
        let (outcome, next) = parse(&input[..end], state);
        state = Some(next);
        match outcome {
            Ok(false) if end < input.len() => {}
            outcome => return outcome.map_err(|_| ()),
        }
    }
}

fn forwarded_once(request: &Request<'_>) {
    for trusted in [false, true] {
        let facts = Forwarding {
            trusted,
            upgrade: request.upgrade() != Upgrade::None,
            ..FACTS
        };
        let mut out = Vec::new();
        write_request(&mut out, request, &facts);
        let mut head = RequestHead::default();
        let parsed = head.parse(&out, &Limits::default());
        let shown = out.escape_ascii();
        assert_eq!(parsed, Ok(true), "what was written is read: {shown}");
        assert_eq!(head.length(), out.len(), "one head was written: {shown}");
        let again = head.view(&out);
        assert_eq!(again.method_name(), request.method_name());
        assert_eq!(again.framing(), request.framing(), "{shown}");
        assert_eq!(
            again.authority().map(|a| a.host.clone()),
            request.authority().map(|a| a.host.clone())
        );
        if !trusted {
            let mut twice = Vec::new();
            write_request(&mut twice, &again, &facts);
            assert_eq!(twice, out, "a second edge changes nothing");
        }
        let trust = |address| trusted && address != std::net::IpAddr::from([192, 0, 2, 9]);
        let peer = std::net::IpAddr::from([192, 0, 2, 7]);
        let _client = client_address(request, peer, trust);
    }
}

#[test]
fn response_heads() {
    target("responses", |input| {
        let limits = Limits::default();
        let mut head = ResponseHead::default();
        let whole = head.parse(input, &limits);
        assert_eq!(
            grown(input, |part, fresh| {
                let mut head: ResponseHead = fresh.unwrap_or_default();
                (head.parse(part, &limits), head)
            }),
            whole.map_err(|_| ()),
            "read in pieces"
        );
        if whole != Ok(true) {
            return;
        }
        for (visitor, to_head) in [
            (Version::Http11, false),
            (Version::Http11, true),
            (Version::Http10, false),
        ] {
            let options = ResponseOptions {
                visitor,
                to_head,
                keep_alive: true,
                rewrite: None,
                hide_server: true,
                date: Some(b"Sun, 06 Nov 1994 08:49:37 GMT"),
            };
            let mut out = Vec::new();
            let outcome = write_response(&mut out, &head.view(input), &options);
            let mut again = ResponseHead::default();
            let shown = out.escape_ascii();
            assert_eq!(again.parse(&out, &limits), Ok(true), "{shown}");
            assert_eq!(again.length(), out.len(), "{shown}");
            let view = again.view(&out);
            assert_eq!(view.status(), head.view(input).status());
            if outcome.chunked {
                assert_eq!(view.framing(false), Framing::Chunked, "{shown}");
            }
        }
    });
}

/// A chunked body says the same in one piece and in many, and survives being
/// written anew.
#[test]
fn chunked_bodies() {
    target("chunked", |input| {
        let whole = decode(input, input.len().max(1));
        for size in [1, 2, 5, 64] {
            assert_eq!(decode(input, size), whole, "pieces of {size}");
        }
        let Ok((data, consumed, trailers)) = whole else {
            return;
        };
        assert!(consumed <= input.len());
        let mut out = Vec::new();
        for part in data.chunks(7) {
            write_chunk_head(&mut out, part.len());
            out.extend_from_slice(part);
            out.extend_from_slice(b"\r\n");
        }
        let mut section = Trailers::default();
        match section.parse(&trailers) {
            Ok(()) => write_trailers(&mut out, &section, &trailers),
            Err(_) => return,
        }
        let (again, read, _) = decode(&out, out.len()).expect("what was written is read");
        assert_eq!((again, read), (data, out.len()));
    });
}

/// The data, how much was consumed, and the trailer section.
type Decoded = Result<(Vec<u8>, usize, Vec<u8>), ()>;

/// Decodes as a connection would: what a step leaves stays in the buffer, and
/// more comes in pieces of one size.
fn decode(input: &[u8], size: usize) -> Decoded {
    let mut body = Body::new(Framing::Chunked);
    let (mut data, mut trailers) = (Vec::new(), b"\r\n".to_vec());
    let (mut start, mut end) = (0, 0);
    loop {
        let step = body.decode(&input[start..end]).map_err(|_| ())?;
        data.extend_from_slice(&input[start..end][step.data.clone()]);
        if let Some(range) = &step.trailers {
            trailers = input[start..end][range.clone()].to_vec();
        }
        start += step.consumed;
        if step.done {
            assert!(body.is_done() && body.finish().is_ok());
            return Ok((data, start, trailers));
        }
        if step.consumed == 0 {
            if end == input.len() {
                return body.finish().map_err(|_| ()).and(Err(()));
            }
            end = (end + size).min(input.len());
        }
    }
}
