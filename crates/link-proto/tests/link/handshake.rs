//! The handshake, and every way in which somebody may try to bend it.

use std::time::{Duration, Instant};

use crate::support::{
    AES, CHACHA, UNIX, agent, edge, edge_fresh, first_of, identity, live, pin, proved, psk, timing,
    welcome,
};
use adit_link_proto::{
    ANSWER_LEN, AgentEvent, ControlEvent, EdgeEvent, EdgeHandshake, FIRST_LEN, First,
    HandshakeError, KeyError, OpenError, ReplayCache, ReplayError, Suite,
};
use adit_model::Pin;
use adit_wire::{FrameKind, Message};

#[test]
fn a_link_comes_alive_in_each_suite() {
    for (agent_has, edge_has, expected) in [
        (AES, AES, Suite::Aes256Gcm),
        (AES, CHACHA, Suite::ChaCha20Poly1305),
        (CHACHA, AES, Suite::ChaCha20Poly1305),
        (CHACHA, CHACHA, Suite::ChaCha20Poly1305),
    ] {
        let mut pair = live(agent_has, edge_has);
        assert_eq!(pair.agent.keys.suite(), expected);
        assert_eq!(pair.edge.keys.suite(), expected);
        let message = Message::ChannelsWanted { idle: 3, trunks: 0 };
        pair.edge.control.send(&message).unwrap();
        pair.settle();
        let event = pair.agent.control.poll_event();
        assert_eq!(event, Some(ControlEvent::Message(message)));
    }
}

#[test]
fn it_works_byte_by_byte_and_without_a_pin() {
    let (keys, now) = (psk(9), Instant::now());
    let mut agent = agent(&keys, identity(1).public(), AES);
    let first = first_of(&mut agent);
    let mut edge = edge(&keys, &first, AES, now);
    for byte in edge.poll_transmit().unwrap() {
        agent.handle_input(&[byte]).unwrap();
    }
    for byte in agent.poll_transmit().unwrap() {
        assert!(edge.poll_event().is_none());
        edge.handle_input(&[byte]).unwrap();
    }
    let event = edge.poll_event();
    assert!(matches!(event, Some(EdgeEvent::AgentProved { version, .. }) if version == "0.1.0"));
    let (bytes, mut edge) = edge.admit(&welcome(), timing(), now).unwrap();
    // Frames right behind the welcome reach the control channel.
    edge.control.send(&Message::StatsWanted).unwrap();
    let more = edge.control.poll_transmit().unwrap();
    for byte in bytes.into_iter().chain(more) {
        agent.handle_input(&[byte]).unwrap();
    }
    let (told, mut agent) = agent.finish(now).unwrap();
    assert_eq!(told, welcome());
    let event = agent.control.poll_event();
    assert_eq!(event, Some(ControlEvent::Message(Message::StatsWanted)));
}

#[test]
fn the_edge_shows_nothing_before_the_first_message_is_proved() {
    let keys = psk(9);
    let here = identity(1).public();
    let mut agent = agent(&keys, here, AES);
    let first = first_of(&mut agent);
    assert!(first.prove_link(&keys, &here).is_some());
    assert_eq!(first.id(), keys.id_at(UNIX));
    // Wrong secret.
    assert!(first.prove_link(&psk(8), &here).is_none());
    // Captured for another edge that knows the same secret.
    assert!(first.prove_link(&keys, &identity(3).public()).is_none());
    // Every single bit counts, in versions, suites and reserved bytes too.
    for bit in 0..FIRST_LEN * 8 {
        let mut bytes = *first.bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let bent = First::parse(&bytes);
        assert!(bent.prove_link(&keys, &here).is_none(), "bit {bit}");
    }
}

#[test]
fn a_first_message_works_once() {
    let keys = psk(9);
    let mut agent = agent(&keys, identity(1).public(), AES);
    let first = first_of(&mut agent);
    let mut cache = ReplayCache::new(1000, 100);
    let check = |cache: &mut ReplayCache, now| {
        let again = First::parse(first.bytes());
        cache.check(again.id(), again.nonce(), again.unix(), now)
    };
    assert_eq!(check(&mut cache, UNIX + 3), Ok(()));
    assert_eq!(check(&mut cache, UNIX + 3), Err(ReplayError::Replayed));
    assert_eq!(check(&mut cache, UNIX + 35), Err(ReplayError::Replayed));
    assert_eq!(check(&mut cache, UNIX + 36), Err(ReplayError::Skewed(36)));
    assert_eq!(check(&mut cache, UNIX - 36), Err(ReplayError::Skewed(36)));
}

#[test]
fn a_replayed_first_message_and_hello_lead_nowhere() {
    // Even if the cache were lost: the edge's fresh share changes the keys.
    let (keys, now) = (psk(9), Instant::now());
    let mut agent = agent(&keys, identity(1).public(), AES);
    let first = first_of(&mut agent);
    let mut first_edge = edge(&keys, &first, AES, now);
    agent
        .handle_input(&first_edge.poll_transmit().unwrap())
        .unwrap();
    let hello = agent.poll_transmit().unwrap();
    first_edge.handle_input(&hello).unwrap();
    assert!(first_edge.poll_event().is_some());
    let proved = first.prove_link(&keys, &identity(1).public()).unwrap();
    let mut fresh = edge_fresh();
    fresh.ephemeral = [77; 32];
    let identity = identity(1);
    let mut second = EdgeHandshake::start(&proved, &keys, &identity, fresh, AES, now).unwrap();
    assert_eq!(
        second.handle_input(&hello),
        Err(HandshakeError::Open(OpenError::NotAuthentic))
    );
    assert!(second.poll_event().is_none());
}

#[test]
fn every_altered_bit_of_the_edges_first_bytes_is_noticed() {
    let (keys, now) = (psk(9), Instant::now());
    let here = identity(1).public();
    let first = first_of(&mut agent(&keys, here, AES));
    let sent = edge(&keys, &first, AES, now).poll_transmit().unwrap();
    for at in 0..sent.len() {
        let mut bent = sent.clone();
        bent[at] ^= 1 << (at % 8);
        let mut agent = agent(&keys, here, AES);
        agent.poll_transmit();
        let handled = agent.handle_input(&bent);
        // A longer length only makes the agent wait for more.
        let waits = (ANSWER_LEN..ANSWER_LEN + 4).contains(&at) && handled.is_ok();
        assert!(handled.is_err() || waits, "byte {at}");
        assert!(agent.poll_transmit().is_none(), "byte {at}");
        assert!(agent.poll_event().is_none(), "byte {at}");
    }
}

#[test]
fn every_altered_bit_of_the_agents_hello_is_noticed() {
    let (keys, now) = (psk(9), Instant::now());
    let mut agent = agent(&keys, identity(1).public(), AES);
    let first = first_of(&mut agent);
    let answer = edge(&keys, &first, AES, now).poll_transmit().unwrap();
    agent.handle_input(&answer).unwrap();
    let hello = agent.poll_transmit().unwrap();
    for at in 0..hello.len() {
        let mut bent = hello.clone();
        bent[at] ^= 1 << (at % 8);
        let mut edge = edge(&keys, &first, AES, now);
        let handled = edge.handle_input(&bent);
        assert!(handled.is_err() || at < 4, "byte {at}");
        assert!(edge.poll_event().is_none(), "byte {at}");
        if handled.is_err() {
            // An error is final.
            assert!(edge.handle_input(&hello).is_err());
            assert!(edge.ask_pin().is_err());
            assert!(edge.refuse().is_err());
            assert!(edge.admit(&welcome(), timing(), now).is_err());
        }
    }
}

#[test]
fn truncated_oversized_and_surplus_input_is_refused() {
    let (keys, now) = (psk(9), Instant::now());
    let mut agent = agent(&keys, identity(1).public(), AES);
    let first = first_of(&mut agent);
    let answer = edge(&keys, &first, AES, now).poll_transmit().unwrap();
    agent.handle_input(&answer).unwrap();
    let hello = agent.poll_transmit().unwrap();
    // Cut short: nothing happens, until the deadline.
    let mut waiting = edge(&keys, &first, AES, now);
    waiting.handle_input(&hello[..hello.len() - 1]).unwrap();
    assert!(waiting.poll_event().is_none());
    assert_eq!(waiting.deadline(), now + Duration::from_secs(10));
    // A length that no handshake frame has, known from four bytes.
    for length in [0u32, 21, 1024 + 23, 65_558, 65_559, u32::MAX] {
        let mut edge = edge(&keys, &first, AES, now);
        assert!(
            edge.handle_input(&length.to_be_bytes()).is_err(),
            "{length}"
        );
    }
    // More than a frame before its turn.
    let mut flooded = edge(&keys, &first, AES, now);
    assert_eq!(
        flooded.handle_input(&[0; 5000]),
        Err(HandshakeError::TooMuch)
    );
    let mut eager = edge(&keys, &first, AES, now);
    let doubled = [hello.as_slice(), &hello].concat();
    assert_eq!(eager.handle_input(&doubled), Err(HandshakeError::TooMuch));
    // The agent bounds what waits behind the welcome.
    let mut agent = crate::support::agent(&keys, identity(1).public(), AES);
    let flood = agent.handle_input(&vec![0; (1 << 20) + 1]);
    assert_eq!(flood, Err(HandshakeError::TooMuch));
}

#[test]
fn repeated_and_misplaced_frames_are_refused() {
    let now = Instant::now();
    let (_, mut edge) = proved(AES, AES, now);
    // The same hello again: its counter is past.
    let keys = psk(9);
    let mut other = agent(&keys, identity(1).public(), AES);
    let first = first_of(&mut other);
    let answer = crate::support::edge(&keys, &first, AES, now)
        .poll_transmit()
        .unwrap();
    other.handle_input(&answer).unwrap();
    let hello = other.poll_transmit().unwrap();
    assert_eq!(
        edge.handle_input(&hello),
        Err(HandshakeError::Open(OpenError::NotAuthentic))
    );
    // A PIN that nobody asked for.
    let (mut agent, mut edge) = proved(AES, AES, now);
    assert_eq!(agent.offer_pin(&pin()), Err(HandshakeError::BadState));
    edge.ask_pin().unwrap();
    let wanted = edge.poll_transmit().unwrap();
    agent.handle_input(&wanted).unwrap();
    // The edge's frame, sent back to it.
    assert!(edge.handle_input(&wanted).is_err());
    // A welcome in place of a PIN: the edge may only refuse while it waits.
    assert!(agent.handle_input(&wanted).is_err());
    assert_eq!(agent.offer_pin(&pin()), Err(HandshakeError::BadState));
}

#[test]
fn a_changed_edge_key_is_refused_with_both_fingerprints() {
    // Somebody knows the secret and the real edge's key, but not its identity.
    let (keys, now) = (psk(9), Instant::now());
    let (real, other) = (identity(1).public(), identity(66));
    let mut agent = agent(&keys, real, AES);
    let first = first_of(&mut agent);
    let proved = first.prove_link(&keys, &real).unwrap();
    let mut impostor =
        EdgeHandshake::start(&proved, &keys, &other, edge_fresh(), AES, now).unwrap();
    let error = agent
        .handle_input(&impostor.poll_transmit().unwrap())
        .unwrap_err();
    assert_eq!(
        error,
        HandshakeError::WrongEdge {
            expected: real,
            presented: other.public()
        }
    );
    let text = error.to_string();
    assert!(text.contains(&real.to_string()) && text.contains(&other.public().to_string()));
    // The agent told it nothing: no identity, no PIN.
    assert!(agent.poll_transmit().is_none());
}

#[test]
fn versions_and_suites_cannot_be_talked_down() {
    let (keys, now) = (psk(9), Instant::now());
    let here = identity(1).public();
    let first = first_of(&mut agent(&keys, here, AES));
    // Both bytes of the offer are under the MAC.
    for at in [65, 66] {
        let mut bytes = *first.bytes();
        bytes[at] = 1;
        if bytes != *first.bytes() {
            assert!(First::parse(&bytes).prove_link(&keys, &here).is_none());
        }
    }
    // Both bytes of the choice are under the transcript.
    let sent = edge(&keys, &first, AES, now).poll_transmit().unwrap();
    for (at, value, expected) in [
        (48, 0, HandshakeError::NoCommonVersion),
        (48, 2, HandshakeError::NoCommonVersion),
        (49, 0, HandshakeError::NoCommonSuite),
        (49, 3, HandshakeError::NoCommonSuite),
        (49, 1, HandshakeError::Open(OpenError::NotAuthentic)),
    ] {
        let mut bent = sent.clone();
        bent[at] = value;
        let mut agent = agent(&keys, here, AES);
        assert_eq!(agent.handle_input(&bent), Err(expected), "{at} = {value}");
    }
    // A suite that was not offered.
    let mut agent = agent(&keys, here, CHACHA);
    assert_eq!(
        agent.handle_input(&sent),
        Err(HandshakeError::NoCommonSuite)
    );
}

#[test]
fn a_weak_share_is_refused_on_both_sides() {
    let (keys, now) = (psk(9), Instant::now());
    let here = identity(1);
    let mut agent = agent(&keys, here.public(), AES);
    let first = first_of(&mut agent);
    let mut sent = edge(&keys, &first, AES, now).poll_transmit().unwrap();
    sent[..32].fill(0);
    assert_eq!(
        agent.handle_input(&sent),
        Err(HandshakeError::Key(KeyError::WeakShare))
    );
}

#[test]
fn a_refusal_is_one_and_the_same_and_final() {
    let now = Instant::now();
    let refuse = |with_pin: bool, full: bool| {
        let (mut agent, mut edge) = proved(AES, AES, now);
        if with_pin {
            edge.ask_pin().unwrap();
            assert_eq!(edge.deadline(), now + Duration::from_secs(180));
            agent.handle_input(&edge.poll_transmit().unwrap()).unwrap();
            agent.poll_event();
            agent.offer_pin(&Pin::parse("222222").unwrap()).unwrap();
            edge.handle_input(&agent.poll_transmit().unwrap()).unwrap();
        }
        let told = if full {
            edge.refuse_full().unwrap();
            AgentEvent::Full
        } else {
            edge.refuse().unwrap();
            AgentEvent::Refused
        };
        let bytes = edge.poll_transmit().unwrap();
        agent.handle_input(&bytes).unwrap();
        assert_eq!(agent.poll_event(), Some(told));
        assert!(agent.handle_input(&[0]).is_err());
        assert!(agent.finish(now).is_err());
        assert!(edge.admit(&welcome(), timing(), now).is_err());
        bytes.len()
    };
    assert_eq!(refuse(true, false), refuse(false, false));
    // Nobody on the way sees which it was.
    assert_eq!(refuse(true, true), refuse(false, false));
}

#[test]
fn a_pin_proof_belongs_to_its_session() {
    let now = Instant::now();
    let offer = |edge_nonce: u8| {
        let keys = psk(9);
        let mut agent = agent(&keys, identity(1).public(), AES);
        let first = first_of(&mut agent);
        let here = identity(1);
        let proved = first.prove_link(&keys, &here.public()).unwrap();
        let mut fresh = edge_fresh();
        fresh.nonce = [edge_nonce; 16];
        let mut edge = EdgeHandshake::start(&proved, &keys, &here, fresh, AES, now).unwrap();
        agent.handle_input(&edge.poll_transmit().unwrap()).unwrap();
        edge.handle_input(&agent.poll_transmit().unwrap()).unwrap();
        edge.poll_event();
        edge.ask_pin().unwrap();
        agent.handle_input(&edge.poll_transmit().unwrap()).unwrap();
        agent.offer_pin(&pin()).unwrap();
        (agent.poll_transmit().unwrap(), edge)
    };
    let (first_proof, mut first_edge) = offer(1);
    let (second_proof, mut second_edge) = offer(2);
    assert_ne!(first_proof, second_proof);
    assert!(second_edge.handle_input(&first_proof).is_err());
    first_edge.handle_input(&first_proof).unwrap();
    let Some(EdgeEvent::PinOffered(proof)) = first_edge.poll_event() else {
        panic!("no PIN was offered");
    };
    assert!(proof.matches(&pin()));
    assert_eq!(format!("{proof:?}"), "PinProof(hidden)");
}

#[test]
fn nothing_of_an_identity_is_readable_on_the_wire() {
    let (keys, now) = (psk(9), Instant::now());
    let mut agent = agent(&keys, identity(1).public(), AES);
    let first = first_of(&mut agent);
    let mut edge = edge(&keys, &first, AES, now);
    let mut wire = first.bytes().to_vec();
    let answer = edge.poll_transmit().unwrap();
    agent.handle_input(&answer).unwrap();
    wire.extend(answer);
    wire.extend(agent.poll_transmit().unwrap());
    for hidden in [identity(1).public().0, identity(2).public().0] {
        assert!(!wire.windows(32).any(|window| window == hidden));
    }
    assert!(!wire.windows(5).any(|window| window == b"0.1.0"));
}

#[test]
fn a_session_key_depends_on_both_ephemerals_and_the_secret() {
    let ids = |agent_eph: u8, edge_eph: u8, secret: u8| {
        let (keys, now) = (psk(secret), Instant::now());
        let here = identity(1);
        let fresh = adit_link_proto::AgentFresh {
            ephemeral: [agent_eph; 32],
            nonce: [22; 16],
        };
        let id = adit_model::InstanceId([23; 16]);
        let mut agent = adit_link_proto::AgentHandshake::start(
            &keys,
            here.public(),
            identity(2),
            id,
            UNIX,
            fresh,
            AES,
            "0.1.0",
        )
        .unwrap();
        let first = first_of(&mut agent);
        let proved = first.prove_link(&keys, &here.public()).unwrap();
        let mut fresh = edge_fresh();
        fresh.ephemeral = [edge_eph; 32];
        let mut edge = EdgeHandshake::start(&proved, &keys, &here, fresh, AES, now).unwrap();
        agent.handle_input(&edge.poll_transmit().unwrap()).unwrap();
        edge.handle_input(&agent.poll_transmit().unwrap()).unwrap();
        let (_, session) = edge.admit(&welcome(), timing(), now).unwrap();
        session.keys.ids_around(UNIX)[1]
    };
    let base = ids(1, 2, 3);
    assert_eq!(base, ids(1, 2, 3));
    assert_ne!(base, ids(4, 2, 3));
    assert_ne!(base, ids(1, 4, 3));
    assert_ne!(base, ids(1, 2, 4));
}

#[test]
fn unknown_frames_and_set_flags_end_the_handshake() {
    assert_eq!(FrameKind(0x7f).name(), None);
    let now = Instant::now();
    let (mut agent, mut edge) = proved(AES, AES, now);
    let (bytes, mut session) = {
        edge.ask_pin().unwrap();
        agent.handle_input(&edge.poll_transmit().unwrap()).unwrap();
        agent.offer_pin(&pin()).unwrap();
        edge.handle_input(&agent.poll_transmit().unwrap()).unwrap();
        edge.admit(&welcome(), timing(), now).unwrap()
    };
    // A control frame where the verdict belongs: other keys, so it cannot open.
    session.control.send(&Message::StatsWanted).unwrap();
    let early = session.control.poll_transmit().unwrap();
    let whole = [early.as_slice(), &bytes].concat();
    assert!(agent.handle_input(&whole).is_err());
}
