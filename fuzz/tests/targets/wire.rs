//! Message bodies of the link: what decodes encodes again to the same value,
//! and nothing else comes out than a value or an error.

use std::net::SocketAddr;

use adit_fuzz::{holds, target};
use adit_model::{ConnId, InstanceId, LinkId, Psk, PublicKey, TunnelId, TunnelName};
use adit_wire::{
    AuthOk, BadPiece, Compression, Counters, DataConnReady, Delivered, Drain, Forward, FrameKind,
    Heartbeat, Hello, Message, OpenTunnel, Part, Piece, PieceKind, Pieces, Reset, ResetReason,
    Start, Stats, TRUNK_HEAD, TunnelCounters, TunnelKind, TunnelState, TunnelStatus, Verdict,
};

/// One byte of kind, then the body.
#[test]
fn messages() {
    target("messages", |input| {
        let Some((&kind, body)) = input.split_first() else {
            return;
        };
        let Ok(message) = Message::decode(FrameKind(kind), body) else {
            return;
        };
        assert_eq!(message.kind(), FrameKind(kind));
        let mut again = Vec::new();
        message.encode(&mut again).expect("what decodes encodes");
        assert_eq!(Message::decode(FrameKind(kind), &again), Ok(message));
    });
}

/// One byte that says which body, then the body.
#[test]
fn bodies() {
    target("bodies", |input| {
        let Some((&which, body)) = input.split_first() else {
            return;
        };
        let mut out = Vec::new();
        match which {
            1 => {
                let Ok(hello) = Hello::decode(body) else {
                    return;
                };
                hello.encode(&mut out).expect("what decodes encodes");
                assert_eq!(Hello::decode(&out), Ok(hello));
            }
            2 => {
                let Ok(auth) = AuthOk::decode(body) else {
                    return;
                };
                auth.encode(&mut out).expect("what decodes encodes");
                assert_eq!(AuthOk::decode(&out), Ok(auth));
            }
            3 => {
                let Ok(start) = Start::decode(body) else {
                    return;
                };
                start.encode(&mut out);
                assert_eq!(Start::decode(&out), Ok(start));
            }
            4 => {
                let Ok(reset) = Reset::decode(body) else {
                    return;
                };
                reset.encode(&mut out);
                assert_eq!(Reset::decode(&out), Ok(reset));
            }
            5 => {
                let Ok(ready) = DataConnReady::decode(body) else {
                    return;
                };
                ready.encode(&mut out);
                assert_eq!(DataConnReady::decode(&out), Ok(ready));
            }
            7 => {
                let Ok(forward) = Forward::decode(body) else {
                    return;
                };
                forward.encode(&mut out).expect("what decodes encodes");
                assert_eq!(Forward::decode(&out), Ok(forward));
            }
            _ => {
                if let Ok(verdict) = Verdict::decode(body) {
                    assert_eq!(verdict.to_bytes(), body);
                }
            }
        }
    });
}

/// The corpus holds one input of every message that this version writes: a
/// message that is added or laid out anew is added there too.
#[test]
fn the_corpus_has_every_message() {
    for message in all_messages() {
        let mut input = vec![message.kind().0];
        message.encode(&mut input).unwrap();
        let name = format!("{:?}", message.kind()).to_lowercase();
        holds("messages", &name, &input);
    }
    for (name, input) in all_bodies() {
        holds("bodies", name, &input);
    }
}

fn all_messages() -> Vec<Message> {
    let tunnel = TunnelId(7);
    let share = std::array::from_fn(|i| i as u8);
    vec![
        Message::OpenTunnel(OpenTunnel {
            tunnel,
            name: TunnelName::parse("app").unwrap(),
            kind: TunnelKind::Http,
            exclusive: true,
            auth: Some("user:$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA".into()),
            host_header: Some("inner.test".into()),
            target: "127.0.0.1:3000".into(),
            port: None,
            compression: Compression::Auto,
        }),
        Message::CloseTunnel { tunnel },
        Message::TunnelStatus(TunnelStatus {
            tunnel,
            state: TunnelState::Live,
            url: Some("http://app.localhost:8080".into()),
            code: 0,
            text: "live".into(),
        }),
        Message::IncomingConn {
            tunnel,
            conn: ConnId(u64::MAX),
        },
        Message::ChannelsWanted { idle: 8, trunks: 2 },
        Message::Heartbeat(Heartbeat {
            sequence: 3,
            echo: Some(2),
        }),
        Message::Drain(Drain {
            seconds: 30,
            addresses: vec!["edge.test:7400".into(), "[::1]:7400".into()],
        }),
        Message::Superseded,
        Message::Stats(stats()),
        Message::StatsWanted,
        Message::Error {
            code: 1203,
            text: "refused".into(),
        },
        Message::Rekey { epoch: 1, share },
        Message::RekeyAck { epoch: 1, share },
        Message::RekeyDone { epoch: 1 },
    ]
}

fn stats() -> Stats {
    let counters = Counters {
        visitors_now: 1,
        visitors_ever: 2,
        bytes_in: 3,
        bytes_out: u64::MAX,
    };
    Stats {
        total: counters,
        tunnels: vec![TunnelCounters {
            tunnel: TunnelId(7),
            counters,
        }],
    }
}

/// What a trunk carries: the same in one portion and in many, never more than
/// there is, and heads that write themselves again.
#[test]
fn pieces() {
    let line = 7;
    let mut good = Vec::new();
    for (kind, line, count) in [
        (PieceKind::Open, line, 0),
        (PieceKind::Data, line, 20),
        (PieceKind::Credit, line, 64),
        (PieceKind::Ping, 0, 0),
        (PieceKind::Pong, 0, 0),
        (PieceKind::Data, u32::MAX, 1),
        (PieceKind::Close, line, 0),
    ] {
        let piece = Piece { kind, line, count };
        good.extend(piece.bytes());
        good.extend(vec![0xab; piece.payload()]);
    }
    holds("pieces", "each-kind", &good);
    target("pieces", |input| {
        let whole = taken_apart(input, input.len());
        assert_eq!(taken_apart(input, 1), whole);
        assert_eq!(taken_apart(input, 5), whole);
    });
}

/// The heads, each with what followed of its payload, and what was wrong.
fn taken_apart(input: &[u8], portion: usize) -> (Vec<(Piece, usize)>, Option<BadPiece>) {
    let (mut pieces, mut waiting, mut found) = (Pieces::default(), Vec::new(), Vec::new());
    for part in input.chunks(portion.max(1)) {
        waiting.extend_from_slice(part);
        loop {
            let taken = match pieces.next(&waiting) {
                Err(bad) => return (found, Some(bad)),
                Ok(Part::Missing) => break,
                Ok(Part::Opening(piece) | Part::Head(piece)) => {
                    assert_eq!(waiting.first_chunk(), Some(&piece.bytes()));
                    found.push((piece, 0));
                    TRUNK_HEAD
                }
                Ok(Part::Payload { line, bytes }) => {
                    let last = found.last_mut();
                    assert!(last.is_some_and(|(piece, so_far): &mut (Piece, usize)| {
                        *so_far += bytes;
                        piece.line == line && *so_far <= piece.payload() && bytes > 0
                    }));
                    bytes
                }
            };
            waiting.drain(..taken);
        }
    }
    (found, None)
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn all_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let body = |which: u8, write: &dyn Fn(&mut Vec<u8>)| {
        let mut input = vec![which];
        write(&mut input);
        input
    };
    let hello = Hello {
        identity: PublicKey([1; 32]),
        signature: [2; 64],
        instance: Some(InstanceId([3; 16])),
        version: Some("0.1.0".into()),
        finished: [4; 32],
    };
    let auth = AuthOk {
        link: LinkId(9),
        agent_secret: Some(Psk::from_random(std::array::from_fn(|i| (i * 37) as u8))),
        url_pattern: "http://{name}.localhost:8080".into(),
        heartbeat_ms: 10_000,
        dead_ms: 20_000,
        idle_channels: 8,
        max_channels: 1024,
        version: "0.1.0".into(),
        doors: Vec::new(),
    };
    let start = |visitor: &str| Start {
        tunnel: TunnelId(7),
        conn: ConnId(11),
        visitor: visitor.parse::<SocketAddr>().unwrap(),
        patience_ms: Start::PATIENCE_MS,
        door: None,
        idle_ms: None,
        forwarder: None,
    };
    let reset = Reset {
        reason: ResetReason::TargetRefused,
        delivered: Delivered::None,
    };
    vec![
        ("hello", body(1, &|out| hello.encode(out).unwrap())),
        ("auth-ok", body(2, &|out| auth.encode(out).unwrap())),
        (
            "start-v4",
            body(3, &|out| start("192.0.2.1:50000").encode(out)),
        ),
        (
            "start-v6",
            body(3, &|out| start("[2001:db8::1]:50000").encode(out)),
        ),
        (
            "start-flow",
            body(3, &|out| {
                let idle_ms = std::num::NonZeroU32::new(60_000);
                let start = start("192.0.2.1:50000");
                Start { idle_ms, ..start }.encode(out);
            }),
        ),
        ("reset", body(4, &|out| reset.encode(out))),
        (
            "ready",
            body(5, &|out| DataConnReady { conn: ConnId(12) }.encode(out)),
        ),
        (
            "forward",
            body(7, &|out| {
                let name = TunnelName::parse("db").unwrap();
                let conn = ConnId(13);
                Forward { name, conn }.encode(out).unwrap();
            }),
        ),
        (
            "verdict",
            body(6, &|out| out.extend(Verdict::Accepted.to_bytes())),
        ),
    ]
}
