//! The handshake, and every way in which somebody may try to bend it.

mod support;

use std::time::{Duration, Instant};

use adit_link_proto::{
    ANSWER_LEN, AgentEvent, ControlEvent, EdgeEvent, EdgeHandshake, FIRST_LEN, First,
    HandshakeError, KeyError, OpenError, ReplayCache, ReplayError, Suite,
};
use adit_model::Pin;
use adit_wire::{FrameKind, Message};
use support::{
    AES, CHACHA, UNIX, agent, edge, edge_fresh, first_of, identity, live, pin, proved, psk, timing,
    welcome,
};

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
        let message = Message::ChannelsWanted { idle: 3 };
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
