//! Vectors of what a link has beside its frames where it runs over QUIC: the
//! knock and datagrams.

use adit_model::{Identity, Psk};
use serde_json::{Value, json};

use super::{UNIX, bytes, check, direction, hex};
use crate::keys::{Secret, expand, extract, mac};
use crate::{DatagramFlow, DatagramKeys, Knock, PskKeys, Suite};

/// The knock of a secret, made a second time from the page's formula.
fn knock() -> Value {
    let psk = Psk::from_random(bytes(1));
    let edge = Identity::from_seed(bytes(2)).unwrap().public();
    let nonce = bytes::<4>(30);
    let keys = PskKeys::new(&psk);
    let made = Knock::make(&keys, &edge, UNIX, nonce);
    let first_key = expand(
        &extract(b"adit/1 secret", &[psk.bytes()]),
        "adit/1 first message",
        &[],
    );
    let head = [&keys.id_at(UNIX).0[..], &nonce].concat();
    let tag = mac(first_key.as_slice(), &[b"adit quic knock", &head, &edge.0]);
    assert_eq!(made.bytes()[..], [&head[..], &tag[..8]].concat());
    json!({
        "inputs": {
            "secret": psk.expose(), "epoch": UNIX / 600, "edge": hex(edge.0), "random": hex(nonce),
        },
        "id": hex(keys.id_at(UNIX).0),
        "mac": hex(tag),
        "knock": hex(made.bytes()),
    })
}

/// Datagrams of both sides of one channel, in two flows.
fn datagrams(suite: Suite) -> Value {
    let prk = Secret::new(bytes(31));
    let (number, epoch) = (70_000u64, 1u32);
    let context = [&number.to_be_bytes()[..], &epoch.to_be_bytes()].concat();
    let [up, down] = ["agent to edge", "edge to agent"]
        .map(|way| expand(&prk, &format!("adit/1 datagram {way}"), &[&context]));
    let agent = DatagramKeys::new(suite, &up, &down).unwrap();
    let edge = DatagramKeys::new(suite, &down, &up).unwrap();
    let index = 258;
    let mut rows = Vec::new();
    let said: [(&str, u32, [&[u8]; 2]); 3] = [
        ("agent", 3, [b"question", b""]),
        ("edge", 3, [b"answer", b"more"]),
        ("agent", 4, [b"next flow", b"x"]),
    ];
    for (side, flow, plains) in said {
        let (from, to) = match side {
            "agent" => (&agent, &edge),
            _ => (&edge, &agent),
        };
        let (mut sender, mut receiver) = (
            DatagramFlow::new(index, flow),
            DatagramFlow::new(index, flow),
        );
        for (datagram, plain) in plains.into_iter().enumerate() {
            let sealed = sender.seal(from, plain).unwrap();
            let mut opened = Vec::new();
            assert!(receiver.open(to, &sealed, &mut opened) && opened == plain);
            rows.push(json!({
                "from": side, "flow": flow, "datagram": datagram,
                "plain": hex(plain), "sealed": hex(sealed),
            }));
        }
    }
    json!({
        "inputs": {
            "suite": suite.number(), "channel_prk": hex(*prk), "number": number,
            "epoch": epoch, "index": index,
        },
        "agent_to_edge": direction(&up),
        "edge_to_agent": direction(&down),
        "datagrams": rows,
    })
}

#[test]
fn vectors_of_knocks_and_datagrams() {
    let suites = [Suite::ChaCha20Poly1305, Suite::Aes256Gcm];
    let channels = suites.map(datagrams).to_vec();
    let made = json!({ "knock": knock(), "channels": channels });
    check("quic.json", &made);
}
