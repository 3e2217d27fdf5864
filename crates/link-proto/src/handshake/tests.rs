//! Handshake frames that open, because their sender has the keys, and yet
//! prove nothing: each side against a hand-made other one.

use std::time::Instant;

use adit_model::{Identity, InstanceId, Psk};
use adit_wire::{HEAD, Hello, TAG, Verdict};

use super::*;
use crate::first::{Body, First, Parts};
use crate::keys::{PskKeys, share_of, shared};
use crate::seal::{Suite, Suites};
use crate::session::Role;
use crate::stage::{ANSWER_LEN, MAX_HANDSHAKE_PAYLOAD, Stage, VERSION};
use crate::transcript::Transcript;

const SUITES: Suites = Suites { aes: false };
const UNIX: u64 = 1_700_000_000;

fn keys() -> PskKeys {
    PskKeys::new(&Psk::from_random([9; 32]))
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32]).unwrap()
}

/// An edge that has answered, and the stage of a hand-made agent after its
/// hello.
fn edge_and_stage() -> (EdgeHandshake, Stage) {
    let (keys, edge) = (keys(), identity(1));
    let parts = Parts {
        id: keys.id_at(UNIX),
        unix: UNIX,
        nonce: [3; 16],
        body: Body::Link(share_of(&[4; 32]).unwrap()),
        suites: SUITES.to_byte(),
    };
    let first = First::make(&parts, keys.first_key(), &edge.public());
    let proved = first.prove_link(&keys, &edge.public()).unwrap();
    let fresh = EdgeFresh {
        ephemeral: [5; 32],
        nonce: [6; 16],
    };
    let now = Instant::now();
    let mut handshake = EdgeHandshake::start(&proved, &keys, &edge, fresh, SUITES, now).unwrap();
    let sent = handshake.poll_transmit().unwrap();
    let (answer, hello) = sent.split_at(ANSWER_LEN);
    let mut transcript = Transcript::link();
    transcript.add(&[first.bytes()]);
    transcript.add(&[answer]);
    let dh = shared(&[4; 32], answer.first_chunk::<32>().unwrap()).unwrap();
    let suite = Suite::ChaCha20Poly1305;
    let secrets: [&[u8]; 2] = [dh.as_slice(), keys.psk().bytes()];
    let mut stage = Stage::new(&WORDS, transcript, suite, &secrets, Role::Agent).unwrap();
    let mut input = Input::new(10_000);
    input.push(hello).unwrap();
    let opened = input.frame(&mut stage.opener, MAX_HANDSHAKE_PAYLOAD);
    let (kind, body) = opened.unwrap().unwrap();
    assert_eq!(kind, FrameKind::HELLO);
    stage.transcript.add(&[&[kind.0], &body]);
    (handshake, stage)
}

/// An agent that waits for an answer, the answer, and the stage of a hand-made
/// edge behind it.
fn agent_and_stage() -> (AgentHandshake, Vec<u8>, Stage) {
    let keys = keys();
    let fresh = AgentFresh {
        ephemeral: [4; 32],
        nonce: [3; 16],
    };
    let (edge, me) = (identity(1).public(), Arc::new(identity(2)));
    let id = InstanceId([7; 16]);
    let agent = AgentHandshake::start(&keys, edge, me, id, UNIX, fresh, SUITES, "test");
    let mut agent = agent.unwrap();
    let first = agent.poll_transmit().unwrap();
    let mut answer = share_of(&[5; 32]).unwrap().to_vec();
    answer.extend_from_slice(&[6; 16]);
    answer.extend_from_slice(&[VERSION, Suite::ChaCha20Poly1305.number()]);
    let mut transcript = Transcript::link();
    transcript.add(&[&first]);
    transcript.add(&[&answer]);
    let dh = shared(&[5; 32], &share_of(&[4; 32]).unwrap()).unwrap();
    let suite = Suite::ChaCha20Poly1305;
    let secrets: [&[u8]; 2] = [dh.as_slice(), keys.psk().bytes()];
    let stage = Stage::new(&WORDS, transcript, suite, &secrets, Role::Edge).unwrap();
    (agent, answer, stage)
}

/// What a hello claims, and what it rests on.
struct Claim {
    claims: PublicKey,
    signs: Identity,
    label: Role,
    instance: Option<InstanceId>,
    version: Option<String>,
    flip_finished: bool,
    flip_transcript: bool,
}

impl Claim {
    fn honest(seed: u8, label: Role) -> Self {
        Self {
            claims: identity(seed).public(),
            signs: identity(seed),
            label,
            instance: Some(InstanceId([7; 16])),
            version: Some("test".into()),
            flip_finished: false,
            flip_transcript: false,
        }
    }

    /// Its body, with a right MAC unless told otherwise.
    fn body(&self, stage: &Stage, sender: Role) -> Vec<u8> {
        let mut signed = stage.signed(self.label, &self.claims);
        if self.flip_transcript {
            let at = signed.len() - 40;
            signed[at] ^= 1;
        }
        let hello = Hello {
            identity: self.claims,
            signature: self.signs.sign(&signed),
            instance: self.instance,
            version: self.version.clone(),
            finished: [0; 32],
        };
        let mut body = Vec::new();
        hello.encode_unfinished(&mut body).unwrap();
        let mut finished = stage.finished(sender, &body);
        finished[31] ^= u8::from(self.flip_finished);
        Hello::encode_finished(finished, &mut body);
        body
    }
}

/// The edge's answer to an agent's claim.
fn told_to_edge(change: impl FnOnce(&mut Claim)) -> Result<(), HandshakeError> {
    let (mut edge, mut stage) = edge_and_stage();
    let mut claim = Claim::honest(2, Role::Agent);
    change(&mut claim);
    let body = claim.body(&stage, Role::Agent);
    let mut bytes = Vec::new();
    stage.send(FrameKind::HELLO, &body, &mut bytes).unwrap();
    let handled = edge.handle_input(&bytes);
    assert_eq!(edge.poll_event().is_some(), handled.is_ok());
    handled
}

/// The agent's answer to an edge's claim.
fn told_to_agent(change: impl FnOnce(&mut Claim)) -> Result<(), HandshakeError> {
    let (mut agent, mut bytes, mut stage) = agent_and_stage();
    let mut claim = Claim::honest(1, Role::Edge);
    change(&mut claim);
    let body = claim.body(&stage, Role::Edge);
    stage.send(FrameKind::HELLO, &body, &mut bytes).unwrap();
    let handled = agent.handle_input(&bytes);
    // It says who it is to a proved edge only.
    assert_eq!(agent.poll_transmit().is_some(), handled.is_ok());
    handled
}

#[test]
fn a_hello_without_its_proofs_proves_nothing() {
    assert_eq!(told_to_edge(|_| {}), Ok(()));
    assert_eq!(told_to_agent(|_| {}), Ok(()));
    let finished = Err(HandshakeError::BadFinished);
    assert_eq!(told_to_edge(|c| c.flip_finished = true), finished);
    assert_eq!(told_to_agent(|c| c.flip_finished = true), finished);
    let signature = Err(HandshakeError::BadSignature);
    // Somebody else's key, another transcript, the other side's label.
    assert_eq!(told_to_edge(|c| c.signs = identity(66)), signature);
    assert_eq!(told_to_agent(|c| c.signs = identity(66)), signature);
    assert_eq!(told_to_edge(|c| c.flip_transcript = true), signature);
    assert_eq!(told_to_agent(|c| c.flip_transcript = true), signature);
    assert_eq!(told_to_edge(|c| c.label = Role::Edge), signature);
    assert_eq!(told_to_agent(|c| c.label = Role::Agent), signature);
}

#[test]
fn an_agent_says_which_process_it_is() {
    let missing = |tag| Err(HandshakeError::Decode(DecodeError::Missing(tag)));
    assert_eq!(told_to_edge(|c| c.instance = None), missing(3));
    assert_eq!(told_to_edge(|c| c.version = None), missing(4));
    // An edge need not.
    assert_eq!(
        told_to_agent(|c| (c.instance, c.version) = (None, None)),
        Ok(())
    );
}

#[test]
fn the_finished_mac_is_the_one_of_its_sender() {
    let (mut edge, mut stage) = edge_and_stage();
    let claim = Claim::honest(2, Role::Agent);
    let body = claim.body(&stage, Role::Edge);
    let mut bytes = Vec::new();
    stage.send(FrameKind::HELLO, &body, &mut bytes).unwrap();
    let handled = edge.handle_input(&bytes);
    assert_eq!(handled, Err(HandshakeError::BadFinished));
}

#[test]
fn only_the_frame_that_is_due_is_taken() {
    let wrong = [
        FrameKind::PIN_PROOF,
        FrameKind::VERDICT,
        FrameKind::AUTH_OK,
        FrameKind::OPEN_TUNNEL,
        FrameKind(0x7f),
    ];
    for kind in wrong {
        let (mut edge, mut stage) = edge_and_stage();
        let mut bytes = Vec::new();
        stage.send(kind, &[0; 32], &mut bytes).unwrap();
        let handled = edge.handle_input(&bytes);
        assert_eq!(handled, Err(HandshakeError::Unexpected(kind)));
        let (mut agent, mut bytes, mut stage) = agent_and_stage();
        stage.send(kind, &[0; 32], &mut bytes).unwrap();
        let handled = agent.handle_input(&bytes);
        assert_eq!(handled, Err(HandshakeError::Unexpected(kind)));
    }
}

#[test]
fn flags_and_streams_have_no_place_in_a_handshake() {
    for (flags, stream) in [(1, 0), (0, 1)] {
        let (mut edge, mut stage) = edge_and_stage();
        let body = Claim::honest(2, Role::Agent).body(&stage, Role::Agent);
        let mut frame = vec![0; HEAD];
        frame.extend_from_slice(&body);
        frame.resize(frame.len() + TAG, 0);
        let kind = FrameKind::HELLO;
        stage.sealer.seal(kind, flags, stream, &mut frame).unwrap();
        let handled = edge.handle_input(&frame);
        assert_eq!(handled, Err(HandshakeError::Unexpected(kind)));
    }
}

#[test]
fn an_edge_that_admits_itself_is_not_believed() {
    // A verdict in place of a hello was tried above; here the hello is right,
    // and what follows is not.
    let proved = |kind, body: &[u8]| {
        let (mut agent, mut bytes, mut stage) = agent_and_stage();
        let hello = Claim::honest(1, Role::Edge).body(&stage, Role::Edge);
        stage.send(FrameKind::HELLO, &hello, &mut bytes).unwrap();
        stage.send(kind, body, &mut bytes).unwrap();
        agent.handle_input(&bytes)
    };
    let malformed = Err(HandshakeError::Decode(DecodeError::Malformed(0)));
    assert_eq!(proved(FrameKind::VERDICT, &[3]), malformed);
    assert_eq!(proved(FrameKind::VERDICT, &[]), malformed);
    let unexpected = |kind| Err(HandshakeError::Unexpected(kind));
    assert_eq!(proved(FrameKind::HELLO, &[]), unexpected(FrameKind::HELLO));
    assert_eq!(
        proved(FrameKind::AUTH_OK, &[]),
        unexpected(FrameKind::AUTH_OK)
    );
    assert_eq!(proved(FrameKind::PIN_WANTED, &[]), Ok(()));
    assert_eq!(
        proved(FrameKind::VERDICT, &Verdict::Refused.to_bytes()),
        Ok(())
    );
}

#[test]
fn a_pin_proof_is_bound_to_the_transcript() {
    let (_, mut first) = edge_and_stage();
    let (_, mut second) = edge_and_stage();
    assert_eq!(*first.pin_key(), *second.pin_key());
    first.transcript.add(&[b"one agent"]);
    second.transcript.add(&[b"another"]);
    assert_ne!(*first.pin_key(), *second.pin_key());
}
