//! Vectors of compressed frames.

use adit_wire::{Compression, FLAG_LZ4, FrameKind, HEAD, TAG};
use serde_json::{Value, json};

use super::{bytes, check, hex};
use crate::{Packer, Scratch, Sealer, Suite, plain_len, unpack};

/// A payload, what it stands for ("" when it is refused), and its frame.
fn row(payload: &[u8]) -> Value {
    let plain = plain_len(payload).and_then(|length| {
        let mut plain = vec![0; length];
        unpack(payload, &mut plain).map(|()| plain)
    });
    let secret = bytes::<32>(9);
    let mut frame = vec![0; HEAD + payload.len() + TAG];
    frame[HEAD..HEAD + payload.len()].copy_from_slice(payload);
    let mut sealer = Sealer::new(Suite::ChaCha20Poly1305, secret).unwrap();
    sealer
        .seal(FrameKind::DATA, FLAG_LZ4, 1, &mut frame)
        .unwrap();
    json!({
        "secret": hex(secret),
        "payload": hex(payload),
        "plain": plain.map_or(String::new(), hex),
        "frame": hex(frame),
    })
}

#[test]
fn vectors_of_compressed_frames() {
    let text = "It was the best of times, it was the worst of times, it was the age of \
                wisdom, it was the age of foolishness, it was the epoch of belief, it was the \
                epoch of incredulity";
    let mut long_runs = bytes::<64>(10).to_vec();
    long_runs.extend([0; 300]);
    long_runs.extend_from_slice(b"xyz".repeat(99).as_slice());
    long_runs.extend(bytes::<64>(11));
    long_runs.extend(bytes::<64>(10));
    let mut scratch = Scratch::default();
    let mut pack = |plain: &[u8]| {
        let mut packer = Packer::new(Compression::Always).unwrap();
        packer.pack(plain, &mut scratch).unwrap().to_vec()
    };
    let (text, runs) = (pack(text.as_bytes()), pack(&long_runs));
    let with_length = |length: u32| [&length.to_be_bytes(), &text[4..]].concat();
    let right = u32::try_from(plain_len(&text).unwrap()).unwrap();
    let rows = [
        text.clone(),
        runs.clone(),
        // More, less and far more than the block gives; cut short; nothing.
        with_length(right + 1),
        with_length(right - 1),
        with_length(65_537),
        runs[..runs.len() - 1].to_vec(),
        right.to_be_bytes().to_vec(),
        // Copies from before the first byte and from no distance.
        vec![0, 0, 0, 30, 0x1f, b'x', 2, 0, 9, 0x10, b'y'],
        vec![0, 0, 0, 30, 0x1f, b'x', 0, 0, 9, 0x10, b'y'],
        vec![0, 0, 0, 30, 0x1f, b'x', 1, 0, 9, 0x10, b'y'],
    ];
    let made: Vec<Value> = rows.iter().map(|payload| row(payload)).collect();
    let good = made.iter().filter(|row| row["plain"] != "").count();
    assert_eq!(good, 3);
    check("compressed.json", &made.into());
}
