//! Vectors of the handshake between two agents inside a private tunnel.

use std::sync::Arc;

use adit_model::{Identity, TunnelName};
use adit_wire::FrameKind;
use serde_json::{Value, json};

use super::derived::{entry, open};
use super::{bytes, check, direction, hex, private};
use crate::keys::{Secret, expand, extract, sha256, share_of, shared};
use crate::{
    ANSWER_LEN, Opener, PEER_STREAM, PeerEvent, PeerForwarder, PeerFresh, PeerSession, PeerTarget,
    Sealer, Suite, Suites,
};

const NAME: &str = "db";
const QUESTION: &[u8] = b"select 1";
const ANSWER: &[u8] = b"one row";

/// What crosses the wire.
struct Sent {
    first: Vec<u8>,
    answer: Vec<u8>,
    target_hello: Vec<u8>,
    forwarder_hello: Vec<u8>,
    verdict: Vec<u8>,
}

/// Whom the vectors are of: forwarder and target.
fn identities() -> [Arc<Identity>; 2] {
    [20, 21].map(|seed| Arc::new(Identity::from_seed(bytes(seed)).unwrap()))
}

fn fresh(seed: u8) -> PeerFresh {
    PeerFresh {
        ephemeral: private(seed),
        nonce: bytes(seed + 1),
    }
}

fn offer(suite: Suite) -> Suites {
    Suites {
        aes: suite == Suite::Aes256Gcm,
    }
}

fn shake_hands(suite: Suite) -> (Sent, PeerSession, PeerSession) {
    let [own, other] = identities();
    let name = TunnelName::parse(NAME).unwrap();
    let wanted = other.public();
    let started = PeerForwarder::start(name.clone(), wanted, own.clone(), fresh(22), offer(suite));
    let mut forwarder = started.unwrap();
    let mut target = PeerTarget::start(name, other, fresh(24), Suites { aes: true });
    let first = forwarder.poll_transmit().unwrap();
    target.handle_input(&first).unwrap();
    let answered = target.poll_transmit().unwrap();
    forwarder.handle_input(&answered).unwrap();
    let forwarder_hello = forwarder.poll_transmit().unwrap();
    target.handle_input(&forwarder_hello).unwrap();
    assert_eq!(target.poll_event(), Some(PeerEvent::Proved(own.public())));
    target.decide(true).unwrap();
    let verdict = target.poll_transmit().unwrap();
    forwarder.handle_input(&verdict).unwrap();
    assert_eq!(forwarder.poll_event(), Some(PeerEvent::Live));
    let (answer, target_hello) = answered.split_at(ANSWER_LEN);
    let sent = Sent {
        first,
        answer: answer.to_vec(),
        target_hello: target_hello.to_vec(),
        forwarder_hello,
        verdict,
    };
    (sent, forwarder.finish().unwrap(), target.finish().unwrap())
}

/// Some bytes and their end.
fn talk(sealer: &mut Sealer, payload: &[u8]) -> Vec<Vec<u8>> {
    [(FrameKind::DATA, payload), (FrameKind::FIN, b"")]
        .map(|(kind, payload)| {
            let mut frame = Vec::new();
            sealer
                .append(kind, PEER_STREAM, payload, &mut frame)
                .unwrap();
            frame
        })
        .into()
}

/// The keys of the stream, and what is sealed with them.
fn stream(suite: Suite, prk2: &Secret, one: PeerSession, other: PeerSession) -> Value {
    let (mut one, mut other) = (one.sealer, other.sealer);
    let frames = [talk(&mut one, QUESTION), talk(&mut other, ANSWER)];
    let secrets = ["forwarder to target", "target to forwarder"]
        .map(|way| expand(prk2, &format!("adit/1 peer {way}"), &[]));
    for (secret, frames) in secrets.iter().zip(&frames) {
        let mut opener = Opener::new(suite, **secret).unwrap();
        assert_eq!(open(&mut opener, &frames[0]).kind, FrameKind::DATA.0);
        assert_eq!(open(&mut opener, &frames[1]).kind, FrameKind::FIN.0);
    }
    json!({
        "prk": hex(**prk2),
        "forwarder_to_target": direction(&secrets[0]),
        "target_to_forwarder": direction(&secrets[1]),
        "forwarder_frames": frames[0].iter().map(hex).collect::<Vec<_>>(),
        "target_frames": frames[1].iter().map(hex).collect::<Vec<_>>(),
    })
}

fn inputs(suite: Suite) -> Value {
    let [forwarder, target] = identities();
    json!({
        "name": NAME,
        "suite": suite.number(),
        "forwarder_seed": hex(forwarder.expose_seed()),
        "forwarder_ephemeral": hex(private(22)),
        "forwarder_nonce": hex(bytes::<16>(23)),
        "forwarder_suites": offer(suite).to_byte(),
        "target_seed": hex(target.expose_seed()),
        "target_ephemeral": hex(private(24)),
        "target_nonce": hex(bytes::<16>(25)),
        "forwarder_payload": hex(QUESTION),
        "target_payload": hex(ANSWER),
    })
}

fn vectors(suite: Suite) -> Value {
    let (sent, one, other) = shake_hands(suite);
    let t = sha256(&[b"adit/1 peer transcript"]);
    let t = entry(&entry(&t, NAME.as_bytes()), &sent.first);
    let t = entry(&t, &sent.answer);
    let dh = shared(&private(22), &share_of(&private(24)).unwrap()).unwrap();
    let prk = extract(&t, &[dh.as_slice()]);
    let key = |what: &str| expand(&prk, &format!("adit/1 peer {what}"), &[]);
    let to_target = key("handshake forwarder to target");
    let to_forwarder = key("handshake target to forwarder");
    let mut at_target = Opener::new(suite, *to_target).unwrap();
    let mut at_forwarder = Opener::new(suite, *to_forwarder).unwrap();
    let target_hello = open(&mut at_forwarder, &sent.target_hello);
    let forwarder_hello = open(&mut at_target, &sent.forwarder_hello);
    let verdict = open(&mut at_forwarder, &sent.verdict);
    let mut transcript = vec![t];
    for hello in [&target_hello, &forwarder_hello] {
        let last = transcript[transcript.len() - 1].clone();
        let added = [&[hello.kind], hello.body.as_slice()].concat();
        transcript.push(entry(&last, &added));
    }
    let master = key("master");
    let prk2 = extract(&transcript[2], &[master.as_slice()]);
    json!({
        "inputs": inputs(suite),
        "first": hex(&sent.first),
        "answer": hex(&sent.answer),
        "dh": hex(*dh),
        "prk": hex(*prk),
        "forwarder_to_target": direction(&to_target),
        "target_to_forwarder": direction(&to_forwarder),
        "forwarder_finished": hex(*key("forwarder finished")),
        "target_finished": hex(*key("target finished")),
        "master": hex(*master),
        "transcript": transcript.iter().map(hex).collect::<Vec<_>>(),
        "target_hello": target_hello.value(),
        "forwarder_hello": forwarder_hello.value(),
        "verdict": verdict.value(),
        "stream": stream(suite, &prk2, one, other),
    })
}

#[test]
fn vectors_of_two_agents_in_a_private_tunnel() {
    let made = [Suite::ChaCha20Poly1305, Suite::Aes256Gcm].map(vectors);
    check("peers.json", &made.into_iter().collect());
}
