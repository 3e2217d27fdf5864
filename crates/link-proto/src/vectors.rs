//! The test vectors of `docs/vectors`: made from fixed seeds, compared with
//! the files. What crosses the wire comes from the state machines; every value
//! between is derived here a second time from the protocol page's formulas,
//! and opens what the state machines sealed.
//!
//! `ADIT_WRITE_VECTORS=1 cargo test -p adit-link-proto vectors` writes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use adit_model::{Identity, InstanceId, LinkId, Pin, Psk};
use adit_wire::{AuthOk, FrameKind, Message};
use serde_json::{Value, json};

use crate::keys::{Secret, expand, extract, mac, sha256, share_of, shared};
use crate::{
    ANSWER_LEN, AgentEvent, AgentFresh, AgentHandshake, EdgeEvent, EdgeFresh, EdgeHandshake, First,
    Opener, PskKeys, Purpose, RATCHET_PERIOD, Role, Sealer, Session, Suite, Suites, Timing,
};

mod bodies;
mod derived;
mod packed;
mod peers;
mod quic;
mod trunk;

use derived::{Derived, Sent, entry, open};

const UNIX: u64 = 1_700_000_123;

fn hex(bytes: impl AsRef<[u8]>) -> String {
    data_encoding::HEXLOWER.encode(bytes.as_ref())
}

/// Bytes that differ from each other and from those of other seeds.
fn bytes<const N: usize>(seed: u8) -> [u8; N] {
    let mut out = [0; N];
    let mut block = [seed; 32];
    for chunk in out.chunks_mut(32) {
        block = sha256(&[b"vector", &block]);
        chunk.copy_from_slice(&block[..chunk.len()]);
    }
    out
}

/// An X25519 private key as RFC 7748 §5 uses it.
fn private(seed: u8) -> [u8; 32] {
    let mut key = bytes::<32>(seed);
    key[0] &= 248;
    key[31] = key[31] & 127 | 64;
    key
}

fn check(name: &str, made: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/vectors")
        .join(name);
    let made = format!("{}\n", serde_json::to_string_pretty(made).unwrap());
    if std::env::var_os("ADIT_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(
        kept == made,
        "{} differs from what is made now",
        path.display()
    );
}

/// A direction's values.
fn direction(secret: &Secret) -> Value {
    json!({
        "secret": hex(**secret),
        "key": hex(*expand(secret, "adit/1 key", &[])),
        "base": hex(&expand(secret, "adit/1 nonce", &[])[..4]),
    })
}

struct World {
    suite: Suite,
    psk: Psk,
    pin: Pin,
    edge: Identity,
    agent: Arc<Identity>,
    now: Instant,
}

/// What the handshake leaves for the rest.
struct Live {
    agent: Session,
    edge: Session,
    exporter: Secret,
}

impl World {
    fn new(suite: Suite) -> Self {
        Self {
            suite,
            psk: Psk::from_random(bytes(1)),
            pin: Pin::parse("7KQ4MW").unwrap(),
            edge: Identity::from_seed(bytes(2)).unwrap(),
            agent: Arc::new(Identity::from_seed(bytes(3)).unwrap()),
            now: Instant::now(),
        }
    }

    fn inputs(&self) -> Value {
        json!({
            "suite": self.suite.number(),
            "secret": self.psk.expose(),
            "unix": UNIX,
            "pin": self.pin.expose(),
            "edge_seed": hex(self.edge.expose_seed()),
            "agent_seed": hex(self.agent.expose_seed()),
            "agent_instance": hex(bytes::<16>(4)),
            "agent_version": "0.1.0",
            "agent_ephemeral": hex(private(5)),
            "agent_nonce": hex(bytes::<16>(6)),
            "agent_suites": self.offer().to_byte(),
            "edge_ephemeral": hex(private(7)),
            "edge_nonce": hex(bytes::<16>(8)),
            "welcome": self.welcome_body().map(hex).unwrap(),
            "agent_message": { "type": 0x19, "body": "" },
            "edge_message": { "type": 0x14, "body": "0100020005" },
            "rekey_agent_ephemeral": hex(private(9)),
            "rekey_edge_ephemeral": hex(private(10)),
            "channels": [
                { "number": 0, "epoch": 0, "agent_random": hex(bytes::<16>(11)),
                  "edge_random": hex(bytes::<16>(12)) },
                { "number": 70_000, "epoch": 1, "agent_random": hex(bytes::<16>(13)),
                  "edge_random": hex(bytes::<16>(14)) },
            ],
            "stream": 3,
            "payload": hex(b"GET / HTTP/1.1\r\n\r\n"),
        })
    }

    fn offer(&self) -> Suites {
        Suites {
            aes: self.suite == Suite::Aes256Gcm,
        }
    }

    fn welcome(&self) -> AuthOk {
        AuthOk {
            link: LinkId(77),
            agent_secret: Some(Psk::from_random(bytes(15))),
            url_pattern: "http://{name}.example.test".into(),
            heartbeat_ms: 10_000,
            dead_ms: 20_000,
            idle_channels: 4,
            max_channels: 500,
            version: "0.1.0".into(),
            doors: Vec::new(),
        }
    }

    fn welcome_body(&self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        self.welcome().encode(&mut body).ok()?;
        Some(body)
    }

    fn secret_values(&self) -> Value {
        let prk = extract(b"adit/1 secret", &[self.psk.bytes()]);
        let id_key = expand(&prk, "adit/1 secret id", &[]);
        let first_key = expand(&prk, "adit/1 first message", &[]);
        let ids: Vec<String> = (UNIX / 600 - 1..=UNIX / 600 + 1)
            .map(|epoch| hex(&mac(id_key.as_slice(), &[&epoch.to_be_bytes()])[..8]))
            .collect();
        let keys = PskKeys::new(&self.psk);
        assert_eq!(keys.ids_around(UNIX).map(|id| hex(id.0)).to_vec(), ids);
        json!({
            "prk": hex(*prk),
            "id_key": hex(*id_key),
            "first_key": hex(*first_key),
            "ids": ids,
        })
    }

    fn agent_start(&self) -> AgentHandshake {
        AgentHandshake::start(
            &PskKeys::new(&self.psk),
            self.edge.public(),
            Arc::clone(&self.agent),
            InstanceId(bytes(4)),
            UNIX,
            AgentFresh {
                ephemeral: private(5),
                nonce: bytes(6),
            },
            self.offer(),
            "0.1.0",
        )
        .unwrap()
    }

    fn edge_start(&self, first: &[u8]) -> EdgeHandshake {
        let keys = PskKeys::new(&self.psk);
        let first = First::parse(first.try_into().unwrap());
        let proved = first.prove_link(&keys, &self.edge.public()).unwrap();
        let fresh = EdgeFresh {
            ephemeral: private(7),
            nonce: bytes(8),
        };
        let all = Suites { aes: true };
        EdgeHandshake::start(&proved, &keys, &self.edge, fresh, all, self.now).unwrap()
    }

    /// The handshake's frames, as they cross the wire, and the live link.
    fn shake_hands(&self) -> (Sent, Session, Session) {
        let mut agent = self.agent_start();
        let first = agent.poll_transmit().unwrap();
        let mut edge = self.edge_start(&first);
        let edge_first = edge.poll_transmit().unwrap();
        agent.handle_input(&edge_first).unwrap();
        let agent_hello = agent.poll_transmit().unwrap();
        edge.handle_input(&agent_hello).unwrap();
        edge.ask_pin().unwrap();
        let pin_wanted = edge.poll_transmit().unwrap();
        agent.handle_input(&pin_wanted).unwrap();
        assert_eq!(agent.poll_event(), Some(AgentEvent::PinWanted));
        agent.offer_pin(&self.pin).unwrap();
        let pin_proof = agent.poll_transmit().unwrap();
        edge.handle_input(&pin_proof).unwrap();
        let proved = edge.poll_event();
        assert!(matches!(proved, Some(EdgeEvent::AgentProved { .. })));
        let offered = edge.poll_event();
        assert!(matches!(offered, Some(EdgeEvent::PinOffered(p)) if p.matches(&self.pin)));
        let timing = Timing::default();
        let (last, edge) = edge.admit(&self.welcome(), timing, self.now).unwrap();
        agent.handle_input(&last).unwrap();
        let (_, agent) = agent.finish(self.now).unwrap();
        let (answer, edge_hello) = edge_first.split_at(ANSWER_LEN);
        let (verdict, auth_ok) = last.split_at(adit_wire::FRAME_OVERHEAD + 1);
        let sent = Sent {
            first,
            answer: answer.to_vec(),
            proofs: [edge_hello.to_vec(), agent_hello, pin_wanted, pin_proof],
            verdict: verdict.to_vec(),
            auth_ok: auth_ok.to_vec(),
        };
        (sent, agent, edge)
    }

    /// The handshake, and every value in it.
    fn handshake(&self) -> (Value, Live) {
        let (sent, agent, edge) = self.shake_hands();
        let stage = Derived::new(self, &sent.first, &sent.answer);
        let mut to_edge = stage.opener(self.suite, &stage.to_edge);
        let mut to_agent = stage.opener(self.suite, &stage.to_agent);
        let [edge_hello, agent_hello, wanted, proof] = &sent.proofs;
        let edge_hello = open(&mut to_agent, edge_hello);
        let agent_hello = open(&mut to_edge, agent_hello);
        let wanted = open(&mut to_agent, wanted);
        let proof = open(&mut to_edge, proof);
        let verdict = open(&mut to_agent, &sent.verdict);
        let mut t = vec![stage.t.clone()];
        for frame in [&edge_hello, &agent_hello, &wanted, &proof] {
            let last = t[t.len() - 1].clone();
            t.push(entry(
                &last,
                &[&[frame.kind], frame.body.as_slice()].concat(),
            ));
        }
        let pin_prk = extract(&t[3], &[stage.master.as_slice()]);
        let pin_key = expand(&pin_prk, "adit/1 pin", &[]);
        assert_eq!(proof.body, mac(pin_key.as_slice(), &[self.pin.bytes()]));
        let prk2 = extract(&t[4], &[stage.master.as_slice()]);
        let mut value = stage.value(&sent);
        let more = json!({
            "transcript": t.iter().map(hex).collect::<Vec<_>>(),
            "edge_hello": edge_hello.value(),
            "agent_hello": agent_hello.value(),
            "pin_wanted": wanted.value(),
            "pin_key": hex(*pin_key),
            "pin_proof": proof.value(),
            "verdict": verdict.value(),
        });
        merge(&mut value, more);
        merge(&mut value, self.session_values(&prk2, &sent.auth_ok));
        let exporter = expand(&prk2, "adit/1 exporter", &[]);
        let live = Live {
            agent,
            edge,
            exporter,
        };
        (value, live)
    }

    fn session_values(&self, prk2: &Secret, auth_ok: &[u8]) -> Value {
        let control = |label| expand(prk2, label, &[]);
        let ours = control("adit/1 control edge to agent");
        let welcome = open(&mut Opener::new(self.suite, *ours).unwrap(), auth_ok);
        assert_eq!(Some(&welcome.body), self.welcome_body().as_ref());
        json!({
            "prk2": hex(**prk2),
            "control_agent_to_edge": direction(&control("adit/1 control agent to edge")),
            "control_edge_to_agent": direction(&ours),
            "exporter": hex(*control("adit/1 exporter")),
            "session_id_key": hex(*control("adit/1 session id")),
            "auth_ok": welcome.value(),
        })
    }

    /// A message each way, a new epoch, a message each way.
    fn epochs(&self, live: &mut Live) -> (Value, Secret) {
        let now = self.now;
        let mut frames = Vec::new();
        let mut go = |live: &mut Live| {
            if let Some(bytes) = live.agent.control.poll_transmit() {
                frames.push(json!({ "from": "agent", "frame": hex(&bytes) }));
                live.edge.control.handle_input(&bytes, now).unwrap();
            }
            if let Some(bytes) = live.edge.control.poll_transmit() {
                frames.push(json!({ "from": "edge", "frame": hex(&bytes) }));
                live.agent.control.handle_input(&bytes, now).unwrap();
            }
        };
        let talk = |live: &mut Live| {
            live.agent.control.send(&Message::StatsWanted).unwrap();
            live.edge
                .control
                .send(&Message::ChannelsWanted { idle: 5, trunks: 0 })
                .unwrap();
        };
        talk(live);
        go(live);
        live.agent.control.rekey(private(9), now).unwrap();
        go(live);
        live.edge.control.rekey(private(10), now).unwrap();
        go(live);
        go(live);
        talk(live);
        go(live);
        assert_eq!((live.agent.keys.epoch(), live.edge.keys.epoch()), (1, 1));
        let (a, b) = (
            share_of(&private(9)).unwrap(),
            share_of(&private(10)).unwrap(),
        );
        let dh = shared(&private(9), &b).unwrap();
        let prk = extract(live.exporter.as_slice(), &[dh.as_slice()]);
        let one = 1u32.to_be_bytes();
        let next = |label| expand(&prk, label, &[&one, &a, &b]);
        let value = json!({
            "dh": hex(*dh),
            "prk": hex(*prk),
            "exporter": hex(*next("adit/1 exporter")),
            "control_agent_to_edge": direction(&next("adit/1 control agent to edge")),
            "control_edge_to_agent": direction(&next("adit/1 control edge to agent")),
            "frames": frames,
        });
        let mut last = Opener::new(self.suite, *next("adit/1 control edge to agent")).unwrap();
        let sealed = value["frames"][frames_len(&value) - 1]["frame"]
            .as_str()
            .unwrap();
        let sealed = data_encoding::HEXLOWER.decode(sealed.as_bytes()).unwrap();
        assert_eq!(open(&mut last, &sealed).kind, FrameKind::CHANNELS_WANTED.0);
        (value, next("adit/1 exporter"))
    }

    fn channel(&self, live: &Live, exporter: &Secret, number: u64, seed: u8, epoch: u32) -> Value {
        let (agent_random, edge_random) = (bytes::<16>(seed), bytes::<16>(seed + 1));
        let header_key = expand(exporter, "adit/1 channel header", &[]);
        let prk = extract(
            &[agent_random, edge_random].concat(),
            &[exporter.as_slice()],
        );
        let context = [&number.to_be_bytes()[..], &epoch.to_be_bytes()].concat();
        let to_edge = expand(&prk, "adit/1 channel agent to edge", &[&context]);
        let to_agent = expand(&prk, "adit/1 channel edge to agent", &[&context]);
        let (header, made) =
            live.agent
                .keys
                .channel_header(number, agent_random, UNIX, Purpose::Streams);
        let agent = live.agent.keys.channel(&made, edge_random, Role::Agent);
        let (mut agent_seals, _) = agent.unwrap();
        let proved = live
            .edge
            .keys
            .prove_channel(&First::parse(&header))
            .unwrap();
        let edge = live.edge.keys.channel(&proved, edge_random, Role::Edge);
        let (mut edge_seals, _) = edge.unwrap();
        let frames: Vec<String> = (0..2).map(|_| hex(data(&mut agent_seals))).collect();
        let back: Vec<String> = (0..2).map(|_| hex(data(&mut edge_seals))).collect();
        let mut opener = Opener::new(self.suite, *to_edge).unwrap();
        let sealed = data_encoding::HEXLOWER.decode(frames[0].as_bytes());
        assert_eq!(open(&mut opener, &sealed.unwrap()).kind, FrameKind::DATA.0);
        json!({
            "header_key": hex(*header_key),
            "header": hex(header),
            "prk": hex(*prk),
            "agent_to_edge": direction(&to_edge),
            "edge_to_agent": direction(&to_agent),
            "agent_frames": frames,
            "edge_frames": back,
            "ratchet": self.ratchet(&to_edge, agent_seals),
            "trunk": self.trunk(live, &prk, (number, epoch), (agent_random, edge_random)),
        })
    }

    /// The last frame before the first ratchet step and the one after it.
    fn ratchet(&self, secret: &Secret, mut sealer: Sealer) -> Value {
        let mut empty = [0; adit_wire::FRAME_OVERHEAD];
        while sealer.counter() < RATCHET_PERIOD - 1 {
            sealer.seal(FrameKind::DATA, 0, 3, &mut empty).unwrap();
        }
        let (before, after) = (data(&mut sealer), data(&mut sealer));
        json!({
            "after": direction(&expand(secret, "adit/1 ratchet", &[])),
            "last_frame_before": hex(before),
            "first_frame_after": hex(after),
        })
    }
}

fn merge(into: &mut Value, more: Value) {
    let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) else {
        panic!("only objects are merged");
    };
    into.extend(more);
}

fn frames_len(value: &Value) -> usize {
    value["frames"].as_array().unwrap().len()
}

/// A data frame as the inputs name it.
fn data(sealer: &mut Sealer) -> Vec<u8> {
    let mut out = Vec::new();
    let payload = b"GET / HTTP/1.1\r\n\r\n";
    sealer
        .append(FrameKind::DATA, 3, payload, &mut out)
        .unwrap();
    out
}

fn link_vectors(suite: Suite) -> Value {
    let world = World::new(suite);
    let secret = world.secret_values();
    let (handshake, mut live) = world.handshake();
    let exporter = Secret::new(*live.exporter);
    let first = world.channel(&live, &exporter, 0, 11, 0);
    let (epoch, exporter) = world.epochs(&mut live);
    let second = world.channel(&live, &exporter, 70_000, 13, 1);
    json!({
        "inputs": world.inputs(),
        "secret": secret,
        "handshake": handshake,
        "epoch_1": epoch,
        "channels": [first, second],
    })
}

#[test]
fn vectors_of_a_link_with_chacha20_poly1305() {
    let made = link_vectors(Suite::ChaCha20Poly1305);
    check("link-chacha20-poly1305.json", &made);
}

#[test]
fn vectors_of_a_link_with_aes_256_gcm() {
    let made = link_vectors(Suite::Aes256Gcm);
    check("link-aes-256-gcm.json", &made);
}
