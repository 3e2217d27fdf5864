//! Every body: what is written is read again, whatever comes is judged.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};

use adit_model::{ConnId, InstanceId, LinkId, Psk, PublicKey, TunnelId, TunnelName};
use adit_wire::{
    AuthOk, Compression, Counters, DataConnReady, DecodeError, Delivered, Drain, FINISHED_FIELD,
    FrameKind, Heartbeat, Hello, MAX_ADDRESSES, MAX_PAYLOAD, MAX_STAT_TUNNELS, Message, OpenTunnel,
    Reset, ResetReason, Start, Stats, TunnelCounters, TunnelKind, TunnelState, TunnelStatus,
    Verdict,
};
use proptest::option;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

fn text(max: usize) -> impl Strategy<Value = String> {
    prop::collection::vec("[ -~ä€]", 0..max / 3).prop_map(|parts| parts.concat())
}

fn name() -> impl Strategy<Value = TunnelName> {
    "[a-z0-9]{1,63}".prop_map(|text| TunnelName::parse(&text).unwrap())
}

fn counters() -> impl Strategy<Value = Counters> {
    any::<(u32, u64, u64, u64)>().prop_map(|(visitors_now, visitors_ever, bytes_in, bytes_out)| {
        Counters {
            visitors_now,
            visitors_ever,
            bytes_in,
            bytes_out,
        }
    })
}

fn open() -> impl Strategy<Value = Message> {
    let kind = prop_oneof![
        Just(TunnelKind::Http),
        Just(TunnelKind::Tcp),
        Just(TunnelKind::Tls),
        Just(TunnelKind::Udp),
        (6u8..).prop_map(TunnelKind::Other),
        Just(TunnelKind::Other(0))
    ];
    let compression = prop_oneof![
        Just(Compression::Off),
        Just(Compression::Auto),
        Just(Compression::Always)
    ];
    let texts = (option::of(text(1024)), option::of(text(256)), text(256));
    (any::<(u32, bool, u16)>(), name(), kind, compression, texts).prop_map(
        |((tunnel, exclusive, port), name, kind, compression, (auth, host_header, target))| {
            Message::OpenTunnel(OpenTunnel {
                tunnel: TunnelId(tunnel),
                name,
                kind,
                exclusive,
                auth,
                host_header,
                target,
                port: NonZeroU16::new(port),
                compression,
            })
        },
    )
}

fn status() -> impl Strategy<Value = Message> {
    let state = prop_oneof![
        Just(TunnelState::Live),
        Just(TunnelState::Refused),
        Just(TunnelState::Closed),
        Just(TunnelState::Trouble)
    ];
    (
        any::<(u32, u16)>(),
        state,
        option::of(text(1024)),
        text(1024),
    )
        .prop_map(|((tunnel, code), state, url, text)| {
            Message::TunnelStatus(TunnelStatus {
                tunnel: TunnelId(tunnel),
                state,
                url,
                code,
                text,
            })
        })
}

fn stats() -> impl Strategy<Value = Message> {
    let tunnel = (any::<u32>(), counters()).prop_map(|(tunnel, counters)| TunnelCounters {
        tunnel: TunnelId(tunnel),
        counters,
    });
    (counters(), prop::collection::vec(tunnel, 0..50))
        .prop_map(|(total, tunnels)| Message::Stats(Stats { total, tunnels }))
}

fn message() -> impl Strategy<Value = Message> {
    let drain = (
        any::<u32>(),
        prop::collection::vec(text(256), 0..=MAX_ADDRESSES),
    )
        .prop_map(|(seconds, addresses)| Message::Drain(Drain { seconds, addresses }));
    prop_oneof![
        open(),
        status(),
        stats(),
        drain,
        any::<u32>().prop_map(|t| Message::CloseTunnel {
            tunnel: TunnelId(t)
        }),
        any::<(u32, u64)>().prop_map(|(t, c)| Message::IncomingConn {
            tunnel: TunnelId(t),
            conn: ConnId(c)
        }),
        any::<(u16, u16)>().prop_map(|(idle, trunks)| Message::ChannelsWanted { idle, trunks }),
        any::<(u64, Option<u64>)>()
            .prop_map(|(sequence, echo)| Message::Heartbeat(Heartbeat { sequence, echo })),
        Just(Message::Superseded),
        Just(Message::StatsWanted),
        (any::<u16>(), text(1024)).prop_map(|(code, text)| Message::Error { code, text }),
        any::<(u32, [u8; 32])>().prop_map(|(epoch, share)| Message::Rekey { epoch, share }),
        any::<(u32, [u8; 32])>().prop_map(|(epoch, share)| Message::RekeyAck { epoch, share }),
        any::<u32>().prop_map(|epoch| Message::RekeyDone { epoch }),
    ]
}

fn body_of(message: &Message) -> Vec<u8> {
    let mut body = Vec::new();
    message.encode(&mut body).unwrap();
    body
}

/// A field of a later version.
fn unknown() -> impl Strategy<Value = Vec<u8>> {
    (200u8.., prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(tag, value)| {
        let mut field = vec![tag, 0, value.len() as u8];
        field.extend(value);
        field
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn messages_survive(message in message(), later in unknown()) {
        let body = body_of(&message);
        prop_assert!(body.len() <= MAX_PAYLOAD);
        prop_assert_eq!(Message::decode(message.kind(), &body), Ok(message.clone()));
        // A field of a later version is skipped, in front and behind.
        let around = [later.as_slice(), &body, &later].concat();
        prop_assert_eq!(Message::decode(message.kind(), &around), Ok(message.clone()));
        // Cut anywhere, it is an error or a whole smaller message.
        for keep in 0..body.len() {
            if let Ok(less) = Message::decode(message.kind(), &body[..keep]) {
                prop_assert_eq!(body_of(&less).len(), keep);
            }
        }
    }

    #[test]
    fn any_body_is_judged_and_what_is_read_can_be_written(
        kind in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        if let Ok(message) = Message::decode(FrameKind(kind), &body) {
            prop_assert_eq!(
                Message::decode(message.kind(), &body_of(&message)), Ok(message)
            );
        }
        let _ = Hello::decode(&body);
        let _ = AuthOk::decode(&body);
        let _ = Verdict::decode(&body);
        let _ = Start::decode(&body);
        let _ = Reset::decode(&body);
        let _ = DataConnReady::decode(&body);
    }

    #[test]
    fn stream_frames_survive(
        tunnel in any::<u32>(), conn in any::<u64>(), visitor in any::<([u16; 8], u16, bool)>(),
        reason in 0u8..12, some in any::<bool>(), patience in any::<u16>(),
    ) {
        let (segments, port, v4) = visitor;
        let visitor = if v4 {
            SocketAddr::from(([segments[0] as u8, 1, 2, 3], port))
        } else {
            SocketAddr::from((segments, port))
        };
        let start = Start {
            tunnel: TunnelId(tunnel), conn: ConnId(conn), visitor, patience_ms: patience,
            door: some.then_some(visitor), idle_ms: NonZeroU32::new(tunnel), forwarder: some.then_some(PublicKey([7; 32])),
        };
        let mut body = Vec::new();
        start.encode(&mut body);
        prop_assert_eq!(Start::decode(&body), Ok(start));
        let delivered = if some { Delivered::Some } else { Delivered::None };
        let reset = Reset { reason: ResetReason::from_number(reason), delivered };
        let mut body = Vec::new();
        reset.encode(&mut body);
        prop_assert_eq!(Reset::decode(&body), Ok(reset));
        let ready = DataConnReady { conn: ConnId(conn) };
        let mut body = Vec::new();
        ready.encode(&mut body);
        prop_assert_eq!(DataConnReady::decode(&body), Ok(ready));
    }

    #[test]
    fn handshake_frames_survive(
        keys in any::<([u8; 32], [u8; 32])>(), half in any::<[u8; 32]>(),
        instance in option::of(any::<[u8; 16]>()), version in option::of(text(64)),
        link in any::<u64>(), numbers in any::<(u16, u16, u16)>(), secret in any::<[u8; 32]>(),
    ) {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&half);
        let hello = Hello {
            identity: PublicKey(keys.0),
            signature,
            instance: instance.map(InstanceId),
            version: version.clone(),
            finished: keys.1,
        };
        let mut body = Vec::new();
        hello.encode(&mut body).unwrap();
        prop_assert_eq!(Hello::decode(&body), Ok(hello));
        // `finished` is the last field, or it is not what the MAC covers.
        body.extend_from_slice(&[200, 0, 0]);
        prop_assert_eq!(Hello::decode(&body), Err(DecodeError::Malformed(5)));
        prop_assert_eq!(body[body.len() - 3 - FINISHED_FIELD], 5);
        let welcome = AuthOk {
            link: LinkId(link),
            agent_secret: Some(Psk::from_random(secret)).filter(|s| Psk::parse(s.expose()).is_ok()),
            url_pattern: "http://{name}.example.test".into(),
            heartbeat_ms: u32::from(numbers.0) + 1,
            dead_ms: u32::from(numbers.0) + 2,
            idle_channels: numbers.1,
            max_channels: numbers.2,
            version: version.unwrap_or_default(),
            doors: Vec::new(),
        };
        let mut body = Vec::new();
        welcome.encode(&mut body).unwrap();
        prop_assert_eq!(AuthOk::decode(&body), Ok(welcome));
    }
}

#[test]
fn what_is_missing_doubled_or_malformed_is_named() {
    let decode = |body: &[u8]| Message::decode(FrameKind::CHANNELS_WANTED, body);
    assert_eq!(
        decode(&[1, 0, 2, 0, 9]),
        Ok(Message::ChannelsWanted { idle: 9, trunks: 0 })
    );
    assert_eq!(decode(&[]), Err(DecodeError::Missing(1)));
    assert_eq!(decode(&[1, 0, 1, 9]), Err(DecodeError::Malformed(1)));
    assert_eq!(decode(&[1, 0, 3, 0, 0, 9]), Err(DecodeError::Malformed(1)));
    assert_eq!(
        decode(&[1, 0, 2, 0, 9, 1, 0, 2, 0, 9]),
        Err(DecodeError::Repeated(1))
    );
    for cut in [
        &[1][..],
        &[1, 0],
        &[1, 0, 2],
        &[1, 0, 2, 0],
        &[1, 255, 255, 0],
    ] {
        assert_eq!(decode(cut), Err(DecodeError::Truncated));
    }
    let unknown = Message::decode(FrameKind::DATA, &[]);
    assert_eq!(unknown, Err(DecodeError::UnknownKind(0x22)));
}

#[test]
fn rows_and_texts_are_bounded_both_ways() {
    let many = Message::Drain(Drain {
        seconds: 1,
        addresses: vec!["a:1".into(); MAX_ADDRESSES + 1],
    });
    assert!(many.encode(&mut Vec::new()).is_err());
    let mut body = vec![1, 0, 4, 0, 0, 0, 1];
    for _ in 0..=MAX_ADDRESSES {
        body.extend_from_slice(&[2, 0, 1, b'a']);
    }
    let read = Message::decode(FrameKind::DRAIN, &body);
    assert_eq!(read, Err(DecodeError::TooMany(2)));
    let tunnel = TunnelCounters {
        tunnel: TunnelId(1),
        counters: Counters::default(),
    };
    let stats = |count| {
        Message::Stats(Stats {
            total: Counters::default(),
            tunnels: vec![tunnel; count],
        })
    };
    assert!(stats(MAX_STAT_TUNNELS + 1).encode(&mut Vec::new()).is_err());
    let largest = body_of(&stats(MAX_STAT_TUNNELS));
    assert!(largest.len() <= MAX_PAYLOAD);
    assert!(Message::decode(FrameKind::STATS, &largest).is_ok());
    for text in [
        "x".repeat(1025),
        "a\nb".into(),
        "\u{1b}[2J".into(),
        "\u{9b}".into(),
    ] {
        let error = Message::Error {
            code: 1,
            text: text.clone(),
        };
        assert!(error.encode(&mut Vec::new()).is_err());
        let mut body = vec![1, 0, 2, 0, 1, 2];
        body.extend_from_slice(&(text.len() as u16).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
        let read = Message::decode(FrameKind::ERROR, &body);
        assert_eq!(read, Err(DecodeError::Malformed(2)));
    }
}

#[test]
fn a_welcome_that_would_spin_or_never_end_is_refused() {
    let welcome = |heartbeat_ms, dead_ms| AuthOk {
        link: LinkId(1),
        agent_secret: None,
        url_pattern: String::new(),
        heartbeat_ms,
        dead_ms,
        idle_channels: 0,
        max_channels: 1,
        version: String::new(),
        doors: Vec::new(),
    };
    for (heartbeat, dead, fits) in [
        (0, 20, false),
        (10, 10, false),
        (10, 9, false),
        (10, 11, true),
    ] {
        let mut body = Vec::new();
        welcome(heartbeat, dead).encode(&mut body).unwrap();
        assert_eq!(AuthOk::decode(&body).is_ok(), fits, "{heartbeat} {dead}");
    }
}

/// The body of a TCP tunnel's `OPEN_TUNNEL`.
fn opened(port: Option<NonZeroU16>, compression: Compression) -> Vec<u8> {
    let open = Message::OpenTunnel(OpenTunnel {
        tunnel: TunnelId(1),
        name: TunnelName::parse("db").unwrap(),
        kind: TunnelKind::Tcp,
        exclusive: false,
        auth: None,
        host_header: None,
        target: String::new(),
        port,
        compression,
    });
    let mut body = Vec::new();
    open.encode(&mut body).unwrap();
    body
}

#[test]
fn no_port_is_zero() {
    let mut body = opened(NonZeroU16::new(258), Compression::Off);
    let at = body.len() - 2;
    assert_eq!(body[at..], [1, 2]);
    body[at..].fill(0);
    let refused = Message::decode(FrameKind::OPEN_TUNNEL, &body);
    assert_eq!(refused, Err(DecodeError::Malformed(8)));
}

#[test]
fn a_compression_that_is_unknown_is_refused() {
    for (last, known) in [(0, false), (1, true), (2, true), (3, false)] {
        let mut body = opened(None, Compression::Always);
        *body.last_mut().unwrap() = last;
        let read = Message::decode(FrameKind::OPEN_TUNNEL, &body);
        let refused = read == Err(DecodeError::Malformed(9));
        assert_eq!(refused, !known, "{last}: {read:?}");
    }
}
