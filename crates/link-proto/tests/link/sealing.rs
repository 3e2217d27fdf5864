//! Frames: what is altered, moved or repeated does not open.

use crate::support::{AES, CHACHA, UNIX, live};
use adit_link_proto::{
    FIRST_LEN, First, KeyError, NumberWindow, OpenError, Opener, ProvedChannel, Purpose, Role,
    SealError, Sealer, Suite,
};
use adit_wire::{FrameKind, HEAD, INNER, LENGTH, MAX_FRAME, MAX_PAYLOAD, TAG};
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

const SUITES: [Suite; 2] = [Suite::ChaCha20Poly1305, Suite::Aes256Gcm];

fn pair(suite: Suite) -> (Sealer, Opener) {
    let secret = [42; 32];
    (
        Sealer::new(suite, secret).unwrap(),
        Opener::new(suite, secret).unwrap(),
    )
}

fn frame(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    sealer
        .append(FrameKind::DATA, 3, payload, &mut out)
        .unwrap();
    out
}

#[test]
fn a_frame_opens_where_it_lies() {
    for suite in SUITES {
        let (mut sealer, mut opener) = pair(suite);
        for length in [0, 1, 1000, MAX_PAYLOAD] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mut buffer = vec![0; HEAD];
            buffer.extend_from_slice(&payload);
            buffer.resize(HEAD + length + TAG, 0);
            sealer.seal(FrameKind::DATA, 0, 9, &mut buffer).unwrap();
            let head = buffer.first_chunk::<LENGTH>().unwrap();
            assert_eq!(Opener::frame_len(head).unwrap(), buffer.len());
            if length >= 1000 {
                assert!(!buffer.windows(16).any(|w| w == &payload[100..116]));
            }
            let opened = opener.open(&mut buffer).unwrap();
            assert_eq!(
                (opened.kind, opened.flags, opened.stream),
                (FrameKind::DATA, 0, 9)
            );
            assert_eq!(buffer[opened.payload], payload);
        }
        assert_eq!((sealer.counter(), opener.counter()), (4, 4));
    }
}

#[test]
fn lengths_are_judged_before_memory_is_taken() {
    let (mut sealer, mut opener) = pair(Suite::ChaCha20Poly1305);
    for (length, fits) in [
        (0u32, false),
        ((INNER + TAG - 1) as u32, false),
        ((INNER + TAG) as u32, true),
        ((INNER + MAX_PAYLOAD + TAG) as u32, true),
        ((INNER + MAX_PAYLOAD + TAG + 1) as u32, false),
        (u32::MAX, false),
    ] {
        assert_eq!(
            Opener::frame_len(&length.to_be_bytes()).is_ok(),
            fits,
            "{length}"
        );
    }
    for length in [0, HEAD + TAG - 1, MAX_FRAME + 1] {
        let sealed = sealer.seal(FrameKind::DATA, 0, 1, &mut vec![0; length]);
        assert_eq!(sealed, Err(SealError::BadLength));
    }
    let mut out = Vec::new();
    let long = sealer.append(FrameKind::DATA, 1, &vec![0; MAX_PAYLOAD + 1], &mut out);
    assert_eq!((long, out.len()), (Err(SealError::BadLength), 0));
    assert_eq!(sealer.counter(), 0);
    for bytes in [&mut [][..], &mut [0; 3][..], &mut [0; 26][..]] {
        assert_eq!(opener.open(bytes), Err(OpenError::BadLength));
    }
}

#[test]
fn every_flipped_bit_is_noticed_and_ends_the_direction() {
    for suite in SUITES {
        let (mut sealer, _) = pair(suite);
        let good = frame(&mut sealer, b"pay 10");
        for bit in 0..good.len() * 8 {
            let (_, mut opener) = pair(suite);
            let mut bent = good.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(opener.open(&mut bent).is_err(), "bit {bit}");
            // No second chance for whoever guesses.
            assert_eq!(
                opener.open(&mut good.clone()),
                Err(OpenError::Exhausted),
                "bit {bit}"
            );
        }
    }
}

#[test]
fn truncated_frames_do_not_open() {
    let (mut sealer, _) = pair(Suite::Aes256Gcm);
    let good = frame(&mut sealer, b"0123456789");
    for keep in 0..good.len() {
        let (_, mut opener) = pair(Suite::Aes256Gcm);
        let mut cut = good[..keep].to_vec();
        assert_eq!(opener.open(&mut cut), Err(OpenError::BadLength));
        // Nor with a length that owns up to the cut.
        let (_, mut opener) = pair(Suite::Aes256Gcm);
        let mut cut = good[..keep].to_vec();
        if let Some(head) = cut.first_chunk_mut::<LENGTH>() {
            *head = ((keep - LENGTH) as u32).to_be_bytes();
            assert!(opener.open(&mut cut).is_err());
        }
    }
}

#[test]
fn repeated_reordered_and_dropped_frames_do_not_open() {
    let (mut sealer, mut opener) = pair(Suite::ChaCha20Poly1305);
    let frames: Vec<Vec<u8>> = (0..3).map(|n| frame(&mut sealer, &[n])).collect();
    opener.open(&mut frames[0].clone()).unwrap();
    let again = opener.open(&mut frames[0].clone());
    assert_eq!(again, Err(OpenError::NotAuthentic));
    let (_, mut opener) = pair(Suite::ChaCha20Poly1305);
    let early = opener.open(&mut frames[1].clone());
    assert_eq!(early, Err(OpenError::NotAuthentic));
    let (_, mut opener) = pair(Suite::ChaCha20Poly1305);
    opener.open(&mut frames[0].clone()).unwrap();
    let skipped = opener.open(&mut frames[2].clone());
    assert_eq!(skipped, Err(OpenError::NotAuthentic));
}

#[test]
fn the_key_ratchets_and_the_counter_runs_on() {
    for suite in SUITES {
        let secret = [1; 32];
        let mut sealer = Sealer::with_period(suite, secret, 4).unwrap();
        let mut opener = Opener::with_period(suite, secret, 4).unwrap();
        let mut never = Opener::new(suite, secret).unwrap();
        for n in 0u8..40 {
            let sealed = frame(&mut sealer, &[n]);
            let mut copy = sealed.clone();
            let opened = opener.open(&mut copy).unwrap();
            assert_eq!(copy[opened.payload], [n]);
            // The first key opens the first period and nothing after it.
            assert_eq!(never.open(&mut sealed.clone()).is_ok(), n < 4, "{n}");
        }
        assert_eq!(opener.counter(), 40);
    }
}

#[test]
fn a_frame_fits_no_other_channel_direction_or_session() {
    let (pair, other) = (live(AES, AES), live(AES, CHACHA));
    let header = |number| {
        pair.agent
            .keys
            .channel_header(number, [5; 16], UNIX, Purpose::Streams)
            .1
    };
    let channel = |who: &adit_link_proto::SessionKeys, of: &ProvedChannel, role| {
        who.channel(of, [6; 16], role).unwrap()
    };
    let keys = &pair.agent.keys;
    let (mut seal_1, mut open_1) = channel(keys, &header(1), Role::Agent);
    let (_, mut open_2) = channel(&pair.edge.keys, &header(2), Role::Edge);
    let (mut edge_1, mut right) = channel(&pair.edge.keys, &header(1), Role::Edge);
    let (_, mut foreign) = channel(&other.edge.keys, &header(1), Role::Edge);
    let (_, mut salted) = pair
        .edge
        .keys
        .channel(&header(1), [7; 16], Role::Edge)
        .unwrap();
    let sealed = frame(&mut seal_1, b"for channel 1");
    for opener in [&mut open_1, &mut open_2, &mut foreign, &mut salted] {
        assert!(opener.open(&mut sealed.clone()).is_err());
    }
    right.open(&mut sealed.clone()).unwrap();
    let (_, mut back) = channel(keys, &header(1), Role::Agent);
    back.open(&mut frame(&mut edge_1, b"back")).unwrap();
    // Nor does it fit the control channel.
    let mut pair = pair;
    assert!(pair.edge.control.handle_input(&sealed, pair.now).is_err());
    assert!(pair.edge.control.is_over());
}

#[test]
fn a_channel_header_works_once_and_at_its_own_session() {
    let (pair, other) = (live(AES, AES), live(AES, CHACHA));
    let (bytes, made) = pair
        .agent
        .keys
        .channel_header(17, [5; 16], UNIX, Purpose::Streams);
    let first = First::parse(&bytes);
    assert!(pair.edge.keys.ids_around(UNIX + 35).contains(&first.id()));
    let proved = pair.edge.keys.prove_channel(&first).unwrap();
    assert_eq!(proved, made);
    assert!(other.edge.keys.prove_channel(&first).is_none());
    assert!(pair.edge.keys.burn(proved.number));
    assert!(!pair.edge.keys.burn(proved.number));
    for bit in 0..FIRST_LEN * 8 {
        let mut bent = bytes;
        bent[bit / 8] ^= 1 << (bit % 8);
        let bent = First::parse(&bent);
        assert!(pair.edge.keys.prove_channel(&bent).is_none(), "bit {bit}");
    }
    // A link's first message is no channel header, and the other way round.
    let psk = crate::support::psk(9);
    let edge = crate::support::identity(1).public();
    assert!(first.prove_link(&psk, &edge).is_none());
    let link = crate::support::first_of(&mut crate::support::agent(&psk, edge, AES));
    assert!(pair.edge.keys.prove_channel(&link).is_none());
}

#[test]
fn an_unknown_epoch_has_no_keys() {
    let pair = live(AES, AES);
    let (_, mut made) = pair
        .agent
        .keys
        .channel_header(1, [5; 16], UNIX, Purpose::Streams);
    made.epoch = 1;
    let keys = pair.edge.keys.channel(&made, [6; 16], Role::Edge);
    assert_eq!(keys.unwrap_err(), KeyError::UnknownEpoch(1));
}

#[test]
fn channel_numbers_may_arrive_out_of_order_within_the_window() {
    let mut window = NumberWindow::default();
    for number in (0..4096).rev() {
        assert!(window.burn(number));
    }
    for number in 0..4096 {
        assert!(!window.burn(number));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (_, mut opener) = pair(Suite::ChaCha20Poly1305);
        prop_assert!(opener.open(&mut bytes).is_err());
    }

    #[test]
    fn any_payload_survives(
        payload in prop::collection::vec(any::<u8>(), 0..2000),
        kind in any::<u8>(), flags in any::<u8>(), stream in any::<u32>(), aes in any::<bool>(),
    ) {
        let (mut sealer, mut opener) = pair(SUITES[usize::from(aes)]);
        let mut buffer = vec![0; HEAD];
        buffer.extend_from_slice(&payload);
        buffer.resize(HEAD + payload.len() + TAG, 0);
        sealer.seal(FrameKind(kind), flags, stream, &mut buffer).unwrap();
        let opened = opener.open(&mut buffer).unwrap();
        prop_assert_eq!((opened.kind.0, opened.flags, opened.stream), (kind, flags, stream));
        prop_assert_eq!(&buffer[opened.payload], payload.as_slice());
    }
}
