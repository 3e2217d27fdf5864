use std::sync::Arc;

use adit_model::{Identity, TunnelName};
use adit_wire::FrameKind;
use proptest::prelude::{any, prop, prop_assert, proptest};

use super::{PeerError, PeerEvent, PeerForwarder, PeerFresh, PeerTarget};
use crate::seal::{Opener, Sealer, Suites};

const BOTH: Suites = Suites { aes: true };

fn identity(seed: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed([seed; 32]).unwrap())
}

fn name(text: &str) -> TunnelName {
    TunnelName::parse(text).unwrap()
}

fn fresh(seed: u8) -> PeerFresh {
    PeerFresh {
        ephemeral: [seed; 32],
        nonce: [seed ^ 0xff; 16],
    }
}

/// Forwarder 1 that wants agent 2's `db`.
fn forwarder(seed: u8) -> PeerForwarder {
    let wanted = identity(2).public();
    PeerForwarder::start(name("db"), wanted, identity(1), fresh(seed), BOTH).unwrap()
}

fn target(of: &str, key: u8, seed: u8) -> PeerTarget {
    PeerTarget::start(name(of), identity(key), fresh(seed), BOTH)
}

/// Runs both to their end; `alter` may change what crosses: way, number, bytes.
fn run(
    forwarder: &mut PeerForwarder,
    target: &mut PeerTarget,
    admit: bool,
    mut alter: impl FnMut(bool, &mut Vec<u8>),
) -> Result<Option<PeerEvent>, PeerError> {
    let (mut to_target, mut to_forwarder) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        if let Some(mut bytes) = forwarder.poll_transmit() {
            alter(true, &mut bytes);
            to_target.extend(bytes);
        }
        let count = target.handle_input(&to_target)?;
        to_target.drain(..count);
        if let Some(PeerEvent::Proved(identity)) = target.poll_event() {
            target.decide(admit && identity == self::identity(1).public())?;
        }
        if let Some(mut bytes) = target.poll_transmit() {
            alter(false, &mut bytes);
            to_forwarder.extend(bytes);
        }
        let count = forwarder.handle_input(&to_forwarder)?;
        to_forwarder.drain(..count);
        if let Some(event) = forwarder.poll_event() {
            return Ok(Some(event));
        }
    }
    Ok(None)
}

fn carries(sealer: &mut Sealer, opener: &mut Opener) -> bool {
    let mut frame = Vec::new();
    sealer
        .append(FrameKind::DATA, 0, b"bytes", &mut frame)
        .unwrap();
    opener
        .open(&mut frame)
        .is_ok_and(|opened| &frame[opened.payload] == b"bytes")
}

#[test]
fn two_agents_that_want_each_other_come_together() {
    for aes in [false, true] {
        let mut one = forwarder(3);
        let suites = Suites { aes };
        let mut other = PeerTarget::start(name("db"), identity(2), fresh(4), suites);
        let event = run(&mut one, &mut other, true, |_, _| {}).unwrap();
        assert_eq!(event, Some(PeerEvent::Live));
        let (mut one, mut other) = (one.finish().unwrap(), other.finish().unwrap());
        assert!(carries(&mut one.sealer, &mut other.opener));
        assert!(carries(&mut other.sealer, &mut one.opener));
        // Not one key for both directions.
        let (sealer, opener) = (&mut one.sealer, &mut one.opener);
        assert!(!carries(sealer, opener));
    }
}

#[test]
fn whoever_is_not_let_in_learns_that_and_has_no_keys() {
    let (mut one, mut other) = (forwarder(3), target("db", 2, 4));
    let event = run(&mut one, &mut other, false, |_, _| {}).unwrap();
    assert_eq!(event, Some(PeerEvent::Refused));
    assert!(one.finish().is_err() && other.finish().is_err());
}

#[test]
fn another_agent_in_the_targets_place_is_named_and_told_nothing() {
    let (mut one, mut other) = (forwarder(3), target("db", 5, 4));
    let mut sent = 0;
    let refused = run(&mut one, &mut other, true, |up, _| sent += u32::from(up));
    let (expected, presented) = (identity(2).public(), identity(5).public());
    let wrong = PeerError::WrongPeer {
        expected,
        presented,
    };
    assert_eq!(refused, Err(wrong));
    let text = wrong.to_string();
    assert!(text.contains(&expected.to_string()) && text.contains(&presented.to_string()));
    assert_eq!(sent, 1, "the first message alone, which names nobody");
    assert!(one.poll_transmit().is_none());
}

#[test]
fn bytes_for_one_tunnel_are_worth_nothing_on_another() {
    let (mut one, mut other) = (forwarder(3), target("other", 2, 4));
    assert!(run(&mut one, &mut other, true, |_, _| {}).is_err());
}

/// What the edge has seen once, it plays again to the same target.
#[test]
fn nothing_that_was_heard_works_again() {
    let mut heard = Vec::new();
    let (mut one, mut other) = (forwarder(3), target("db", 2, 4));
    run(&mut one, &mut other, true, |up, bytes| {
        if up {
            heard.extend_from_slice(bytes);
        }
    })
    .unwrap();
    let mut again = target("db", 2, 5);
    let replayed = again.handle_input(&heard);
    assert!(replayed.is_err(), "{replayed:?}");
    assert_eq!(again.poll_event(), None);
}

#[test]
fn a_suite_that_was_not_offered_or_is_struck_out_ends_it() {
    // The edge strikes AES out of the offer: the transcripts differ.
    let (mut one, mut other) = (forwarder(3), target("db", 2, 4));
    let struck = run(&mut one, &mut other, true, |up, bytes| {
        if up && bytes.len() == 52 {
            bytes[1] = 1;
        }
    });
    assert!(struck.is_err());
    let only = Suites { aes: false };
    let wanted = identity(2).public();
    let mut one = PeerForwarder::start(name("db"), wanted, identity(1), fresh(3), only).unwrap();
    let chosen = run(&mut one, &mut target("db", 2, 4), true, |up, bytes| {
        if !up && bytes[48] == 1 {
            bytes[49] = 2;
        }
    });
    assert!(chosen.is_err());
}

proptest! {
    /// Any one bit that the edge turns: no side comes to believe that the
    /// other has let it in.
    #[test]
    fn every_altered_bit_is_noticed(way in any::<bool>(), at in 0usize..700, bit in 0u8..8) {
        let (mut one, mut other) = (forwarder(3), target("db", 2, 4));
        let (mut passed, mut turned) = (0, false);
        let ended = run(&mut one, &mut other, true, |up, bytes| {
            if up == way {
                if let Some(byte) = at.checked_sub(passed).and_then(|at| bytes.get_mut(at)) {
                    *byte ^= 1 << bit;
                    turned = true;
                }
                passed += bytes.len();
            }
        });
        let live = ended == Ok(Some(PeerEvent::Live));
        prop_assert!(live != turned, "{ended:?}");
        if turned {
            prop_assert!(one.finish().is_err());
        }
    }

    /// In whatever pieces bytes arrive, and whatever comes.
    #[test]
    fn input_in_pieces_and_garbage(cut in 1usize..60, garbage in prop::collection::vec(any::<u8>(), 0..400)) {
        let (mut one, mut other) = (forwarder(3), target("db", 2, 4));
        let mut waiting = Vec::new();
        for piece in one.poll_transmit().unwrap().chunks(cut) {
            waiting.extend_from_slice(piece);
            let count = other.handle_input(&waiting).unwrap();
            waiting.drain(..count);
        }
        let mut waiting = Vec::new();
        for piece in other.poll_transmit().unwrap().chunks(cut) {
            waiting.extend_from_slice(piece);
            let count = one.handle_input(&waiting).unwrap();
            waiting.drain(..count);
        }
        prop_assert!(one.poll_transmit().is_some());
        let _judged = target("db", 2, 4).handle_input(&garbage);
        let _judged = forwarder(3).handle_input(&garbage);
        prop_assert!(other.handle_input(&garbage).is_err() || other.poll_event().is_none());
    }
}
