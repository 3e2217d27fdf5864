//! Vectors of message bodies and join strings.

use std::num::{NonZeroU16, NonZeroU32};

use adit_model::{ConnId, Credential, Identity, JoinString, Psk, TunnelId, TunnelName};
use adit_wire::{
    Compression, Counters, DataConnReady, Delivered, Drain, Forward, FrameKind, Heartbeat, Message,
    OpenTunnel, Reset, ResetReason, Start, Stats, TunnelCounters, TunnelKind, TunnelState,
    TunnelStatus,
};
use serde_json::{Value, json};

use super::{bytes, check, hex};

#[test]
fn vectors_of_join_strings() {
    let rows = [
        (vec!["edge.example.test:7400"], false),
        (vec!["[2001:db8::1]:7400", "192.0.2.1:443"], true),
    ];
    let made: Vec<Value> = rows
        .into_iter()
        .map(|(addresses, token)| {
            let secret = Psk::from_random(bytes(1));
            let edge = Identity::from_seed(bytes(2)).unwrap().public();
            let join = JoinString {
                addresses: addresses.iter().copied().map(str::to_owned).collect(),
                doors: Vec::new(),
                edge,
                credential: if token {
                    Credential::Token(secret.clone())
                } else {
                    Credential::Shared(secret.clone())
                },
            };
            json!({
                "addresses": addresses,
                "edge": hex(edge.0),
                "edge_text": edge.to_string(),
                "kind": if token { "token" } else { "secret" },
                "secret": secret.expose(),
                "text": join.expose(),
            })
        })
        .collect();
    check("join.json", &Value::from(made));
}

/// A body beside the fields that it is made of: tag, type, value.
fn row(kind: FrameKind, body: &[u8], fields: &Value) -> Value {
    json!({ "name": kind.name(), "type": kind.0, "fields": fields, "body": hex(body) })
}

fn message(message: &Message, fields: &Value) -> Value {
    let mut body = Vec::new();
    message.encode(&mut body).unwrap();
    assert_eq!(Message::decode(message.kind(), &body).as_ref(), Ok(message));
    row(message.kind(), &body, fields)
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn control_bodies() -> Vec<Value> {
    let tunnel = TunnelId(3);
    let counters = Counters {
        visitors_now: 1,
        visitors_ever: 2,
        bytes_in: 3,
        bytes_out: 4,
    };
    let counted = "00000001000000000000000200000000000000030000000000000004";
    let open = |auth: Option<&str>, host: Option<&str>, exclusive| {
        Message::OpenTunnel(OpenTunnel {
            tunnel,
            name: TunnelName::parse("app").unwrap(),
            kind: TunnelKind::Http,
            exclusive,
            auth: auth.map(str::to_owned),
            host_header: host.map(str::to_owned),
            target: "127.0.0.1:3000".into(),
            port: None,
            compression: Compression::Off,
        })
    };
    let status = |state, url: Option<&str>, code, text: &str| {
        Message::TunnelStatus(TunnelStatus {
            tunnel,
            state,
            url: url.map(str::to_owned),
            code,
            text: text.into(),
        })
    };
    let stats = Stats {
        total: counters,
        tunnels: vec![TunnelCounters { tunnel, counters }; 2],
    };
    let one = json!([[1, "u32", 3], [2, "bytes", counted]]);
    vec![
        message(
            &open(None, None, false),
            &json!([
                [1, "u32", 3],
                [2, "text", "app"],
                [3, "u8", 1],
                [4, "u8", 0],
                [7, "text", "127.0.0.1:3000"]
            ]),
        ),
        message(
            &open(
                Some("anna:$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA"),
                Some("a.test"),
                true,
            ),
            &json!([
                [1, "u32", 3],
                [2, "text", "app"],
                [3, "u8", 1],
                [4, "u8", 1],
                [
                    5,
                    "text",
                    "anna:$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA"
                ],
                [6, "text", "a.test"],
                [7, "text", "127.0.0.1:3000"]
            ]),
        ),
        message(
            &Message::OpenTunnel(OpenTunnel {
                tunnel,
                name: TunnelName::parse("db").unwrap(),
                kind: TunnelKind::Tcp,
                exclusive: false,
                auth: None,
                host_header: None,
                target: "127.0.0.1:5432".into(),
                port: NonZeroU16::new(2222),
                compression: Compression::Auto,
            }),
            &json!([
                [1, "u32", 3],
                [2, "text", "db"],
                [3, "u8", 2],
                [4, "u8", 0],
                [7, "text", "127.0.0.1:5432"],
                [8, "u16", 2222],
                [9, "u8", 1]
            ]),
        ),
        message(&Message::CloseTunnel { tunnel }, &json!([[1, "u32", 3]])),
        message(
            &status(TunnelState::Live, Some("http://app.example.test"), 0, ""),
            &json!([
                [1, "u32", 3],
                [2, "u8", 1],
                [3, "text", "http://app.example.test"],
                [4, "u16", 0],
                [5, "text", ""]
            ]),
        ),
        message(
            &status(TunnelState::Refused, None, 1203, "the name is taken"),
            &json!([
                [1, "u32", 3],
                [2, "u8", 2],
                [4, "u16", 1203],
                [5, "text", "the name is taken"]
            ]),
        ),
        message(
            &Message::IncomingConn {
                tunnel,
                conn: ConnId(9),
            },
            &json!([[1, "u32", 3], [2, "u64", 9]]),
        ),
        message(
            &Message::ChannelsWanted {
                idle: 12,
                trunks: 2,
            },
            &json!([[1, "u16", 12], [2, "u16", 2]]),
        ),
        message(
            &Message::Heartbeat(Heartbeat {
                sequence: 5,
                echo: None,
            }),
            &json!([[1, "u64", 5]]),
        ),
        message(
            &Message::Heartbeat(Heartbeat {
                sequence: 0,
                echo: Some(5),
            }),
            &json!([[1, "u64", 0], [2, "u64", 5]]),
        ),
        message(
            &Message::Drain(Drain {
                seconds: 30,
                addresses: vec!["a.test:1".into(), "b.test:2".into()],
            }),
            &json!([
                [1, "u32", 30],
                [2, "text", "a.test:1"],
                [2, "text", "b.test:2"]
            ]),
        ),
        message(&Message::Superseded, &json!([])),
        message(
            &Message::Stats(stats),
            &json!([
                [1, "bytes", counted],
                [2, "fields", one],
                [2, "fields", one]
            ]),
        ),
        message(&Message::StatsWanted, &json!([])),
        message(
            &Message::Error {
                code: 1301,
                text: "draining".into(),
            },
            &json!([[1, "u16", 1301], [2, "text", "draining"]]),
        ),
    ]
}

fn starts() -> Vec<Value> {
    let flow = |visitor: &str, patience_ms, door: Option<&str>, idle, fields: Value| {
        let mut body = Vec::new();
        let start = Start {
            tunnel: TunnelId(3),
            conn: ConnId(9),
            visitor: visitor.parse().unwrap(),
            patience_ms,
            door: door.map(|door| door.parse().unwrap()),
            idle_ms: NonZeroU32::new(idle),
            forwarder: None,
        };
        start.encode(&mut body);
        row(FrameKind::START, &body, &fields)
    };
    let start = |visitor, patience, door, fields| flow(visitor, patience, door, 0, fields);
    let (tunnel, conn) = (json!([1, "u32", 3]), json!([2, "u64", 9]));
    let v4 = json!([3, "bytes", "c00002079c40"]);
    let v6 = json!([3, "bytes", "20010db80000000000000000000000019c40"]);
    let door = json!([5, "bytes", "c633640108ae"]);
    let (four, six) = ("192.0.2.7:40000", "[2001:db8::1]:40000");
    let usual = Start::PATIENCE_MS;
    vec![
        start(
            four,
            10_000,
            None,
            json!([tunnel, conn, v4, [4, "u16", 10_000]]),
        ),
        start(four, usual, None, json!([tunnel, conn, v4])),
        start(six, usual, None, json!([tunnel, conn, v6])),
        start(
            four,
            usual,
            Some("198.51.100.1:2222"),
            json!([tunnel, conn, v4, door]),
        ),
        flow(
            six,
            usual,
            None,
            60_000,
            json!([tunnel, conn, v6, [6, "u32", 60_000]]),
        ),
    ]
}

fn other_bodies() -> Vec<Value> {
    let share = bytes::<32>(16);
    let mut reset = Vec::new();
    Reset {
        reason: ResetReason::TargetRefused,
        delivered: Delivered::None,
    }
    .encode(&mut reset);
    let mut ready = Vec::new();
    DataConnReady { conn: ConnId(9) }.encode(&mut ready);
    let mut forward = Vec::new();
    let wish = Forward {
        name: TunnelName::parse("db").unwrap(),
        conn: ConnId(9),
    };
    wish.encode(&mut forward).unwrap();
    let wanted = json!([[1, "text", "db"], [2, "u64", 9]]);
    let keys = json!([[1, "u32", 1], [2, "bytes", hex(share)]]);
    vec![
        message(&Message::Rekey { epoch: 1, share }, &keys),
        message(&Message::RekeyAck { epoch: 1, share }, &keys),
        message(&Message::RekeyDone { epoch: 1 }, &json!([[1, "u32", 1]])),
        row(
            FrameKind::RESET,
            &reset,
            &json!([[1, "u8", 2], [2, "u8", 0]]),
        ),
        row(FrameKind::DATA_CONN_READY, &ready, &json!([[1, "u64", 9]])),
        row(FrameKind::FORWARD, &forward, &wanted),
    ]
}

#[test]
fn vectors_of_bodies() {
    let mut made = control_bodies();
    made.extend(starts());
    made.extend(other_bodies());
    check("bodies.json", &Value::from(made));
}
