//! The control channel: life, key epochs, and what a bad peer may try.

use std::time::Duration;

use crate::support::{AES, Pair, UNIX, live};
use adit_link_proto::{
    ControlError, ControlEvent, EPOCH_GRACE, FIRST_LEN, First, ProvedChannel, Purpose, REKEY_EVERY,
    Role,
};
use adit_model::TunnelId;
use adit_wire::{FrameKind, Message};

const SECOND: Duration = Duration::from_secs(1);

fn events(control: &mut adit_link_proto::Control) -> Vec<ControlEvent> {
    std::iter::from_fn(|| control.poll_event()).collect()
}

/// Passes time, a second at a time; bytes move where `flows` says.
fn pass(pair: &mut Pair, seconds: u64, to_edge: bool, to_agent: bool) -> (u64, Vec<ControlEvent>) {
    let mut seen = Vec::new();
    for second in 1..=seconds {
        pair.now += SECOND;
        pair.agent.control.handle_timeout(pair.now);
        pair.edge.control.handle_timeout(pair.now);
        if let Some(bytes) = pair.agent.control.poll_transmit()
            && to_edge
        {
            pair.edge.control.handle_input(&bytes, pair.now).unwrap();
        }
        if let Some(bytes) = pair.edge.control.poll_transmit()
            && to_agent
        {
            pair.agent.control.handle_input(&bytes, pair.now).unwrap();
        }
        if let Some(bytes) = pair.agent.control.poll_transmit()
            && to_edge
        {
            pair.edge.control.handle_input(&bytes, pair.now).unwrap();
        }
        for control in [&mut pair.agent.control, &mut pair.edge.control] {
            seen.extend(events(control));
        }
        if seen.contains(&ControlEvent::Dead) {
            return (second, seen);
        }
    }
    (seconds, seen)
}

#[test]
fn a_quiet_link_lives_and_measures_its_round_trip() {
    let mut pair = live(AES, AES);
    let (_, seen) = pass(&mut pair, 600, true, true);
    assert!(!seen.contains(&ControlEvent::Dead));
    let beats = seen.iter().filter(|e| matches!(e, ControlEvent::Rtt(_)));
    assert!((110..=122).contains(&beats.count()));
}

#[test]
fn a_cut_in_either_direction_is_found_within_twenty_seconds() {
    for cut_after in 0..25 {
        for (to_edge, to_agent) in [(false, true), (true, false), (false, false)] {
            let mut pair = live(AES, AES);
            pass(&mut pair, cut_after, true, true);
            let (seconds, seen) = pass(&mut pair, 60, to_edge, to_agent);
            assert!(seen.contains(&ControlEvent::Dead));
            assert!(seconds <= 20, "cut after {cut_after} s: {seconds} s");
            assert!(pair.agent.control.is_over() || pair.edge.control.is_over());
        }
    }
}

#[test]
fn a_stopped_process_does_not_take_its_own_sleep_for_a_dead_link() {
    let mut pair = live(AES, AES);
    pass(&mut pair, 11, true, true);
    pair.now += Duration::from_secs(3600 - 60);
    let (_, seen) = pass(&mut pair, 30, true, true);
    assert!(!seen.contains(&ControlEvent::Dead), "{seen:?}");
}

#[test]
fn a_late_answer_to_an_old_question_is_not_taken_for_a_new_one() {
    let mut pair = live(AES, AES);
    pair.now += Duration::from_secs(10);
    pair.agent.control.handle_timeout(pair.now);
    let question = pair.agent.control.poll_transmit().unwrap();
    pair.edge.control.handle_input(&question, pair.now).unwrap();
    let answer = pair.edge.control.poll_transmit().unwrap();
    pair.now += Duration::from_secs(3);
    pair.agent.control.handle_input(&answer, pair.now).unwrap();
    let rtt = ControlEvent::Rtt(Duration::from_secs(3));
    assert_eq!(events(&mut pair.agent.control), [rtt]);
}

#[test]
fn timers_are_told_in_advance() {
    let mut pair = live(AES, AES);
    let start = pair.now;
    let due = pair.agent.control.poll_timeout().unwrap();
    // The first question goes out at once.
    assert_eq!(due, start);
    pair.agent.control.handle_timeout(due);
    let due = pair.agent.control.poll_timeout().unwrap();
    assert_eq!(due, start + Duration::from_secs(10));
    pair.agent.control.handle_timeout(due);
    assert_eq!(events(&mut pair.agent.control), [ControlEvent::Dead]);
    assert_eq!(pair.agent.control.poll_timeout(), None);
    let late = pair.agent.control.send(&Message::StatsWanted);
    assert_eq!(late, Err(ControlError::Over));
}

fn rekey(pair: &mut Pair, salt: u8) {
    pair.agent.control.rekey([salt; 32], pair.now).unwrap();
    pair.settle();
    assert_eq!(
        events(&mut pair.edge.control),
        [ControlEvent::WantEphemeral]
    );
    pair.edge.control.rekey([salt + 1; 32], pair.now).unwrap();
    pair.settle();
}

fn header(pair: &Pair, number: u64) -> ([u8; FIRST_LEN], ProvedChannel) {
    let keys = &pair.agent.keys;
    keys.channel_header(number, [5; 16], UNIX, Purpose::Streams)
}

#[test]
fn keys_change_every_hour_and_the_old_epoch_is_erased() {
    let mut pair = live(AES, AES);
    pair.now += REKEY_EVERY - 5 * SECOND;
    let (_, seen) = pass(&mut pair, 10, true, true);
    assert!(seen.contains(&ControlEvent::WantEphemeral));
    let (old_header, old) = header(&pair, 1);
    for epoch in 1..=3 {
        rekey(&mut pair, 100 + epoch as u8 * 10);
        let rekeyed = ControlEvent::Rekeyed(epoch);
        assert_eq!(
            events(&mut pair.agent.control),
            std::slice::from_ref(&rekeyed)
        );
        assert_eq!(events(&mut pair.edge.control), [rekeyed]);
        assert_eq!(
            (pair.agent.keys.epoch(), pair.edge.keys.epoch()),
            (epoch, epoch)
        );
        let (header, made) = header(&pair, 10);
        assert_eq!(made.epoch, epoch);
        let proved = pair
            .edge
            .keys
            .prove_channel(&First::parse(&header))
            .unwrap();
        let (mut seal, _) = pair
            .agent
            .keys
            .channel(&made, [1; 16], Role::Agent)
            .unwrap();
        let (_, mut open) = pair
            .edge
            .keys
            .channel(&proved, [1; 16], Role::Edge)
            .unwrap();
        let mut bytes = Vec::new();
        seal.append(FrameKind::DATA, 1, b"x", &mut bytes).unwrap();
        open.open(&mut bytes).unwrap();
        if epoch == 1 {
            // A channel that was being dialled still finds its epoch.
            let first = First::parse(&old_header);
            assert!(pair.edge.keys.prove_channel(&first).is_some());
            assert!(pair.edge.keys.channel(&old, [1; 16], Role::Edge).is_ok());
            pair.now += EPOCH_GRACE;
            pair.agent.control.handle_timeout(pair.now);
            pair.edge.control.handle_timeout(pair.now);
            pair.settle();
            events(&mut pair.agent.control);
            events(&mut pair.edge.control);
            assert!(pair.edge.keys.prove_channel(&first).is_none());
            assert!(pair.edge.keys.channel(&old, [1; 16], Role::Edge).is_err());
            assert!(pair.agent.keys.channel(&old, [1; 16], Role::Agent).is_err());
        }
    }
    // Messages go on in both directions.
    pair.edge.control.send(&Message::StatsWanted).unwrap();
    pair.agent.control.send(&Message::StatsWanted).unwrap();
    pair.settle();
    let told = [ControlEvent::Message(Message::StatsWanted)];
    assert_eq!(events(&mut pair.agent.control), told);
    assert_eq!(events(&mut pair.edge.control), told);
}

#[test]
fn messages_cross_a_change_of_keys_in_any_interleaving() {
    let mut pair = live(AES, AES);
    let message = Message::StatsWanted;
    pair.agent.control.send(&message).unwrap();
    pair.agent.control.rekey([1; 32], pair.now).unwrap();
    pair.agent.control.send(&message).unwrap();
    pair.edge.control.send(&message).unwrap();
    let bytes = pair.agent.control.poll_transmit().unwrap();
    pair.edge.control.handle_input(&bytes, pair.now).unwrap();
    pair.agent.control.send(&message).unwrap();
    pair.edge.control.rekey([2; 32], pair.now).unwrap();
    pair.edge.control.send(&message).unwrap();
    pair.settle();
    pair.agent.control.send(&message).unwrap();
    pair.settle();
    let count = |events: Vec<ControlEvent>| {
        let told = ControlEvent::Message(Message::StatsWanted);
        events.into_iter().filter(|e| *e == told).count()
    };
    assert_eq!(count(events(&mut pair.edge.control)), 4);
    assert_eq!(count(events(&mut pair.agent.control)), 2);
    assert_eq!(pair.agent.keys.epoch(), 1);
}

#[test]
fn each_side_sends_only_its_own_messages() {
    let mut pair = live(AES, AES);
    let from_agent = Message::CloseTunnel {
        tunnel: TunnelId(1),
    };
    let from_edge = Message::ChannelsWanted { idle: 1, trunks: 0 };
    for (message, agent, edge) in [
        (&from_agent, true, false),
        (&from_edge, false, true),
        (&Message::Superseded, false, true),
        (&Message::StatsWanted, true, true),
        (&Message::RekeyDone { epoch: 1 }, false, false),
    ] {
        assert_eq!(pair.agent.control.send(message).is_ok(), agent);
        assert_eq!(pair.edge.control.send(message).is_ok(), edge);
    }
}
