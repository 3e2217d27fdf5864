//! What a peer that has the right keys, but bad intentions, may send.

use std::sync::Arc;

use adit_model::{PublicKey, TunnelId};
use adit_wire::{Compression, Drain, HEAD, OpenTunnel, TAG, TunnelKind};
use proptest::prelude::{any, prop, prop_assert, proptest};

use super::*;
use crate::seal::Suite;
use crate::session::{CONTROL, directions};

fn control(role: Role, now: Instant) -> Control {
    let prk = Secret::new([3; 32]);
    let suite = Suite::ChaCha20Poly1305;
    let keys = SessionKeys::new(suite, PublicKey([4; 32]), &prk);
    let pair = directions(suite, &prk, &CONTROL, &[], role).unwrap();
    Control::new(role, pair, Arc::new(keys), Timing::default(), now)
}

fn sides() -> (Control, Control, Instant) {
    let now = Instant::now();
    (control(Role::Agent, now), control(Role::Edge, now), now)
}

/// Hands the edge one frame that the agent's own code would not send.
fn hand(agent: &mut Control, edge: &mut Control, kind: FrameKind, body: &[u8]) -> ControlError {
    let mut bytes = Vec::new();
    agent.sealer.append(kind, 0, body, &mut bytes).unwrap();
    let now = edge.ask_at;
    let error = edge.handle_input(&bytes, now).unwrap_err();
    assert!(edge.is_over());
    assert_eq!(edge.handle_input(&[], now), Err(ControlError::Over));
    assert_eq!(edge.poll_event(), None);
    assert_eq!(edge.poll_timeout(), None);
    error
}

fn body_of(message: &Message) -> Vec<u8> {
    let mut body = Vec::new();
    message.encode(&mut body).unwrap();
    body
}

#[test]
fn unknown_kinds_and_malformed_bodies_end_the_link() {
    for kind in [0x00, 0x06, 0x1e, 0x7f, 0xff] {
        let (mut agent, mut edge, _) = sides();
        let error = hand(&mut agent, &mut edge, FrameKind(kind), &[]);
        assert_eq!(error, ControlError::Decode(DecodeError::UnknownKind(kind)));
    }
    let (mut agent, mut edge, _) = sides();
    let error = hand(&mut agent, &mut edge, FrameKind::HEARTBEAT, &[1, 0, 9, 0]);
    assert_eq!(error, ControlError::Decode(DecodeError::Truncated));
    let (mut agent, mut edge, _) = sides();
    let error = hand(&mut agent, &mut edge, FrameKind::OPEN_TUNNEL, &[]);
    assert_eq!(error, ControlError::Decode(DecodeError::Missing(1)));
}

#[test]
fn handshake_and_data_frames_have_no_place_on_control() {
    for kind in [
        FrameKind::HELLO,
        FrameKind::AUTH_OK,
        FrameKind::START,
        FrameKind::DATA,
    ] {
        let (mut agent, mut edge, _) = sides();
        let error = hand(&mut agent, &mut edge, kind, &[]);
        assert_eq!(
            error,
            ControlError::Decode(DecodeError::UnknownKind(kind.0))
        );
    }
}

#[test]
fn the_edges_messages_are_refused_from_an_agent() {
    let (drain, wanted) = (
        Message::Drain(Drain {
            seconds: 1,
            addresses: Vec::new(),
        }),
        Message::ChannelsWanted { idle: 9, trunks: 2 },
    );
    let ack = Message::RekeyAck {
        epoch: 1,
        share: [9; 32],
    };
    for message in [drain, wanted, ack, Message::Superseded] {
        let (mut agent, mut edge, _) = sides();
        let error = hand(&mut agent, &mut edge, message.kind(), &body_of(&message));
        assert_eq!(error, ControlError::Unexpected(message.kind()));
    }
}

#[test]
fn flags_and_streams_are_refused_on_control() {
    for (flags, stream) in [(1, 0), (0x80, 0), (0, 1)] {
        let (mut agent, mut edge, now) = sides();
        let mut frame = vec![0; HEAD + TAG];
        let kind = FrameKind::STATS_WANTED;
        agent.sealer.seal(kind, flags, stream, &mut frame).unwrap();
        let error = edge.handle_input(&frame, now);
        assert_eq!(error, Err(ControlError::Unexpected(kind)));
    }
}

#[test]
fn replayed_reflected_and_reordered_frames_end_the_link() {
    let (mut agent, mut edge, now) = sides();
    agent.send(&Message::StatsWanted).unwrap();
    let bytes = agent.poll_transmit().unwrap();
    edge.handle_input(&bytes, now).unwrap();
    let again = edge.handle_input(&bytes, now);
    assert_eq!(again, Err(ControlError::Open(OpenError::NotAuthentic)));
    let reflected = agent.handle_input(&bytes, now);
    assert_eq!(reflected, Err(ControlError::Open(OpenError::NotAuthentic)));
    let (mut agent, mut edge, now) = sides();
    agent.send(&Message::StatsWanted).unwrap();
    let first = agent.poll_transmit().unwrap();
    agent.send(&Message::StatsWanted).unwrap();
    let second = agent.poll_transmit().unwrap();
    let swapped = [second, first].concat();
    assert!(edge.handle_input(&swapped, now).is_err());
    assert_eq!(edge.poll_event(), None);
}

#[test]
fn an_oversized_frame_is_refused_by_its_length() {
    let (_, mut edge, now) = sides();
    let error = edge.handle_input(&u32::MAX.to_be_bytes(), now);
    assert_eq!(error, Err(ControlError::Open(OpenError::BadLength)));
}

#[test]
fn key_epochs_go_up_by_one_and_one_at_a_time() {
    let rekey = |epoch| Message::Rekey {
        epoch,
        share: share_of(&[5; 32]).unwrap(),
    };
    for epoch in [0, 2, u32::MAX] {
        let (mut agent, mut edge, _) = sides();
        let body = body_of(&rekey(epoch));
        let error = hand(&mut agent, &mut edge, FrameKind::REKEY, &body);
        assert_eq!(error, ControlError::Unexpected(FrameKind::REKEY));
    }
    // Twice without waiting.
    let (mut agent, mut edge, now) = sides();
    agent.queue(&rekey(1)).unwrap();
    let bytes = agent.poll_transmit().unwrap();
    edge.handle_input(&bytes, now).unwrap();
    assert_eq!(edge.poll_event(), Some(ControlEvent::WantEphemeral));
    let error = hand(&mut agent, &mut edge, FrameKind::REKEY, &body_of(&rekey(1)));
    assert_eq!(error, ControlError::Unexpected(FrameKind::REKEY));
    // Done before it began.
    let (mut agent, mut edge, _) = sides();
    let done = body_of(&Message::RekeyDone { epoch: 0 });
    let error = hand(&mut agent, &mut edge, FrameKind::REKEY_DONE, &done);
    assert_eq!(error, ControlError::Unexpected(FrameKind::REKEY_DONE));
}

#[test]
fn a_weak_share_ends_the_link() {
    let (mut agent, mut edge, now) = sides();
    let weak = Message::Rekey {
        epoch: 1,
        share: [0; 32],
    };
    agent.queue(&weak).unwrap();
    let bytes = agent.poll_transmit().unwrap();
    edge.handle_input(&bytes, now).unwrap();
    let error = edge.rekey([7; 32], now);
    assert_eq!(error, Err(ControlError::Key(KeyError::WeakShare)));
    assert!(edge.is_over());
}

#[test]
fn an_edge_begins_no_epoch_and_an_agent_one_at_a_time() {
    let (mut agent, mut edge, now) = sides();
    edge.rekey([1; 32], now).unwrap();
    assert_eq!(edge.poll_transmit(), None);
    agent.rekey([1; 32], now).unwrap();
    assert!(agent.poll_transmit().is_some());
    agent.rekey([2; 32], now).unwrap();
    assert_eq!(agent.poll_transmit(), None);
}

#[test]
fn a_peer_that_never_reads_costs_bounded_memory() {
    let (mut agent, mut edge, now) = sides();
    // Its questions are answered until the answers fill the queue.
    let question = body_of(&Message::Heartbeat(Heartbeat {
        sequence: 1,
        echo: None,
    }));
    let ended = (0..100_000).find_map(|_| {
        let mut bytes = Vec::new();
        let kind = FrameKind::HEARTBEAT;
        agent.sealer.append(kind, 0, &question, &mut bytes).unwrap();
        edge.handle_input(&bytes, now).err()
    });
    assert_eq!(ended, Some(ControlError::Full));
    assert!(edge.output.len() <= MAX_QUEUED + 100);
    // Messages of the owner are refused and the link lives on.
    let (_, mut edge, _) = sides();
    let text = "x".repeat(1000);
    let message = Message::Error { code: 1, text };
    let refused = (0..10_000).find_map(|_| edge.send(&message).err());
    assert_eq!(refused, Some(ControlError::Full));
    assert!(!edge.is_over());
    assert!(edge.output.len() <= MAX_QUEUED + 100);
}

#[test]
fn a_message_over_its_limits_is_refused_here_not_there() {
    let (mut agent, mut edge, now) = sides();
    let open = |target: String| {
        Message::OpenTunnel(OpenTunnel {
            tunnel: TunnelId(1),
            name: adit_model::TunnelName::parse("app").unwrap(),
            kind: TunnelKind::Http,
            exclusive: false,
            auth: None,
            host_header: None,
            target,
            port: None,
            compression: Compression::Off,
        })
    };
    assert!(agent.send(&open("x".repeat(257))).is_err());
    assert!(agent.send(&open("a\u{1b}[2J".into())).is_err());
    agent.send(&open("x".repeat(256))).unwrap();
    let bytes = agent.poll_transmit().unwrap();
    edge.handle_input(&bytes, now).unwrap();
    let told = ControlEvent::Message(open("x".repeat(256)));
    assert_eq!(edge.poll_event(), Some(told));
}

proptest! {
    #[test]
    fn any_bytes_end_the_link_or_wait(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20)
    ) {
        let (_, mut edge, now) = sides();
        for chunk in chunks {
            let handled = edge.handle_input(&chunk, now);
            prop_assert!(handled.is_ok() || edge.is_over());
            prop_assert!(edge.input.len() < adit_wire::MAX_FRAME);
            prop_assert!(edge.poll_event().is_none());
        }
    }

    #[test]
    fn any_sealed_body_is_judged_without_harm(
        kind in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        let (mut agent, mut edge, now) = sides();
        let mut bytes = Vec::new();
        agent.sealer.append(FrameKind(kind), 0, &body, &mut bytes).unwrap();
        let handled = edge.handle_input(&bytes, now);
        prop_assert!(handled.is_ok() != edge.is_over());
    }
}
