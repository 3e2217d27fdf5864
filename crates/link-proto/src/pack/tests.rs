use adit_wire::{Compression, MAX_PAYLOAD};
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{BadBlock, LONGEST_BREAK, Packer, Scratch, looks_random, plain_len, unpack};
use crate::keys::sha256;

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 32);
    let mut block = [seed; 32];
    while out.len() < length {
        block = sha256(&[b"noise", &block]);
        out.extend_from_slice(&block);
    }
    out.truncate(length);
    out
}

fn text(length: usize) -> Vec<u8> {
    let words =
        (0u32..).flat_map(|n| format!("line {n} of a log that is like the others\n").into_bytes());
    words.take(length).collect()
}

fn packer(policy: Compression) -> Packer {
    Packer::new(policy).unwrap()
}

fn round(plain: &[u8], packed: &[u8]) {
    assert_eq!(plain_len(packed), Ok(plain.len()));
    let mut out = vec![0xaa; plain.len()];
    unpack(packed, &mut out).unwrap();
    assert!(out == plain, "{} bytes", plain.len());
}

#[test]
fn text_of_any_length_is_packed_and_comes_back() {
    let mut scratch = Scratch::default();
    for length in [128, 129, 1023, 1024, 8192, 65_535, MAX_PAYLOAD] {
        for policy in [Compression::Auto, Compression::Always] {
            let plain = text(length);
            let packed = packer(policy).pack(&plain, &mut scratch).unwrap();
            assert!(packed.len() < plain.len() * 15 / 16);
            round(&plain, packed);
        }
    }
    assert!(Packer::new(Compression::Off).is_none());
    for length in [0, 1, 127, MAX_PAYLOAD + 1] {
        let mut packer = packer(Compression::Always);
        assert_eq!(
            packer.pack(&vec![0; length], &mut scratch),
            None,
            "{length}"
        );
    }
}

#[test]
fn what_saves_too_little_goes_as_it_is() {
    let mut scratch = Scratch::default();
    let mut plain = noise(1, 16_384);
    assert_eq!(packer(Compression::Always).pack(&plain, &mut scratch), None);
    // A fifteenth is saved, then a seventeenth.
    let zeros = plain.len() / 15 + 64;
    plain[..zeros].fill(0);
    assert!(
        packer(Compression::Always)
            .pack(&plain, &mut scratch)
            .is_some()
    );
    let mut plain = noise(1, 16_384);
    let zeros = plain.len() / 17;
    plain[..zeros].fill(0);
    assert_eq!(packer(Compression::Always).pack(&plain, &mut scratch), None);
}

/// The frames that were tried among the first 300 when none pays.
#[test]
fn breaks_grow_while_tries_are_in_vain_and_end_when_one_pays() {
    let mut scratch = Scratch::default();
    // Short enough to be tried without a look at a sample.
    let (vain, good) = (noise(2, 1000), text(1000));
    let mut one = packer(Compression::Auto);
    let mut tried = Vec::new();
    for frame in 0..300 {
        if one.skip == 0 {
            tried.push(frame);
        }
        assert_eq!(one.pack(&vain, &mut scratch), None);
    }
    assert_eq!(tried, [0, 3, 8, 17, 34, 67, 132, 197, 262]);
    assert!(one.skip <= LONGEST_BREAK);
    let mut waited = 0;
    while one.pack(&good, &mut scratch).is_none() {
        waited += 1;
    }
    assert_eq!(waited, 27, "the rest of the break");
    assert!(one.pack(&good, &mut scratch).is_some());
    assert_eq!(one.pack(&vain, &mut scratch), None);
    assert_eq!(one.skip, 2, "it begins anew");
    let mut always = packer(Compression::Always);
    for _ in 0..10 {
        assert_eq!(always.pack(&vain, &mut scratch), None);
    }
    assert!(always.pack(&good, &mut scratch).is_some());
}

#[test]
fn a_sample_tells_noise_from_everything_else() {
    for seed in 0..200 {
        assert!(looks_random(&noise(seed, 1024 + usize::from(seed) * 323)));
    }
    assert!(!looks_random(&text(65_536)));
    assert!(!looks_random(&[0; 1024]));
    // A table with one column of noise, in rows of 256 bytes.
    let mut table = vec![7; MAX_PAYLOAD];
    for (row, byte) in table.chunks_mut(256).zip(noise(3, 256)) {
        row[0] = byte;
    }
    assert!(!looks_random(&table));
    let hex: Vec<u8> = noise(4, 4096)
        .iter()
        .flat_map(|byte| format!("{byte:02x}").into_bytes())
        .collect();
    assert!(!looks_random(&hex));
}

#[test]
fn a_block_that_lies_is_refused() {
    let plain = text(4096);
    let mut scratch = Scratch::default();
    let packed = packer(Compression::Always)
        .pack(&plain, &mut scratch)
        .unwrap()
        .to_vec();
    let with_length = |length: u32| {
        let mut other = packed.clone();
        other[..4].copy_from_slice(&length.to_be_bytes());
        other
    };
    for length in [0, 10, 65_537, u32::MAX, 1 << 31] {
        assert_eq!(plain_len(&with_length(length)), Err(BadBlock), "{length}");
    }
    // One more or one less than the block gives.
    for length in [4095, 4097, 65_536] {
        let other = with_length(length);
        let mut out = vec![0; plain_len(&other).unwrap()];
        assert_eq!(unpack(&other, &mut out), Err(BadBlock), "{length}");
    }
    let mut out = vec![0; 4096];
    assert_eq!(unpack(&packed, &mut out[..4095]), Err(BadBlock));
    for cut in 0..packed.len() {
        assert_eq!(unpack(&packed[..cut], &mut out), Err(BadBlock), "{cut}");
    }
    // A copy from before the first byte, and one from nowhere.
    for offset in [[9, 0], [0, 0]] {
        let mut bomb = vec![0, 0, 255, 0, 0x1f, b'x', offset[0], offset[1]];
        bomb.extend_from_slice(&[255; 255]);
        bomb.push(0);
        let mut out = vec![0; 65_280];
        assert_eq!(unpack(&bomb, &mut out), Err(BadBlock));
    }
}

/// Bytes as streams have them: repeats, noise, and both.
fn plain() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..40),
        (any::<u8>(), 1..2000usize).prop_map(|(byte, count)| vec![byte; count]),
        prop::collection::vec(0u8..4, 1..400),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| {
        let mut all = pieces.concat();
        all.truncate(MAX_PAYLOAD);
        all
    })
}

proptest! {
    #[test]
    fn whatever_is_packed_is_smaller_and_comes_back(frames in prop::collection::vec(plain(), 1..8)) {
        let mut scratch = Scratch::default();
        for policy in [Compression::Auto, Compression::Always] {
            let mut one = packer(policy);
            for frame in &frames {
                if let Some(packed) = one.pack(frame, &mut scratch) {
                    prop_assert!(packed.len() < frame.len() - frame.len() / 16);
                    prop_assert_eq!(plain_len(packed), Ok(frame.len()));
                    let mut out = vec![0; frame.len()];
                    prop_assert_eq!(unpack(packed, &mut out), Ok(()));
                    prop_assert!(&out == frame);
                }
            }
        }
    }

    #[test]
    fn whatever_comes_is_judged(payload in prop::collection::vec(any::<u8>(), 0..300), length in 0u32..70_000) {
        let mut payload = payload;
        if let Some(head) = payload.first_chunk_mut::<4>() {
            *head = length.to_be_bytes();
        }
        if let Ok(count) = plain_len(&payload) {
            prop_assert!(count <= MAX_PAYLOAD && count > payload.len());
            let mut out = vec![0; count];
            let _judged = unpack(&payload, &mut out);
        }
    }
}
