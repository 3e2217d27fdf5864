use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use adit_link_proto::{Opener, Packer, Scratch, Sealer, Suite};
use adit_model::{ConnId, TunnelId};
use adit_wire::{Compression, FLAG_LZ4, FrameKind, HEAD, Start, TAG};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::channel::Channel;
use crate::counters::Counters;
use crate::stream::{Fill, Stream, StreamError};

const SUITE: Suite = Suite::ChaCha20Poly1305;
const TO_AGENT: [u8; 32] = [1; 32];
const TO_EDGE: [u8; 32] = [2; 32];

/// The edge's end of a channel, by hand.
struct Edge {
    socket: TcpStream,
    sealer: Sealer,
    opener: Opener,
}

impl Edge {
    async fn say(&mut self, kind: FrameKind, flags: u8, payload: &[u8]) {
        let mut frame = vec![0; HEAD + payload.len() + TAG];
        frame[HEAD..HEAD + payload.len()].copy_from_slice(payload);
        self.sealer.seal(kind, flags, 1, &mut frame).unwrap();
        self.socket.write_all(&frame).await.unwrap();
    }

    /// Kind, flags and payload of the next frame.
    async fn hear(&mut self) -> (FrameKind, u8, Vec<u8>) {
        let mut frame = vec![0; 4];
        self.socket.read_exact(&mut frame).await.unwrap();
        let whole = Opener::frame_len(frame.first_chunk().unwrap()).unwrap();
        frame.resize(whole, 0);
        self.socket.read_exact(&mut frame[4..]).await.unwrap();
        let opened = self.opener.open(&mut frame).unwrap();
        (opened.kind, opened.flags, frame[opened.payload].to_vec())
    }
}

/// A stream that an agent has taken, with compression or without.
async fn stream(compression: Compression) -> (Stream, Edge, Arc<Counters>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let counters = Arc::new(Counters::default());
    let keys = (
        Sealer::new(SUITE, TO_EDGE).unwrap(),
        Opener::new(SUITE, TO_AGENT).unwrap(),
    );
    let channel = Channel::new(near.unwrap(), keys, Arc::clone(&counters));
    let mut edge = Edge {
        socket: far.unwrap().0,
        sealer: Sealer::new(SUITE, TO_AGENT).unwrap(),
        opener: Opener::new(SUITE, TO_EDGE).unwrap(),
    };
    let mut start = Vec::new();
    Start {
        tunnel: TunnelId(1),
        conn: ConnId(1),
        visitor: "192.0.2.1:5".parse().unwrap(),
        patience_ms: Start::PATIENCE_MS,
        door: None,
        idle_ms: None,
        forwarder: None,
    }
    .encode(&mut start);
    edge.say(FrameKind::START, 0, &start).await;
    let incoming = channel.next_start().await.unwrap();
    let mut stream = incoming.accept().unwrap();
    stream.compress(compression);
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    assert_eq!(edge.hear().await.0, FrameKind::ACCEPTED);
    (stream, edge, counters)
}

fn text(length: usize) -> Vec<u8> {
    let words = (0u32..).flat_map(|n| format!("row {n} of many that are alike\n").into_bytes());
    words.take(length).collect()
}

fn packed(plain: &[u8]) -> Vec<u8> {
    let mut scratch = Scratch::default();
    let mut packer = Packer::new(Compression::Always).unwrap();
    packer.pack(plain, &mut scratch).unwrap().to_vec()
}

async fn filled(stream: &mut Stream, wanted: usize) {
    while stream.buffer().len() < wanted {
        let fill = poll_fn(|cx| stream.poll_fill(cx)).await.unwrap();
        assert_eq!(fill, Fill::Data);
    }
}

#[tokio::test]
async fn frames_of_both_kinds_stand_in_one_buffer_in_their_order() {
    let (mut stream, mut edge, counters) = stream(Compression::Auto).await;
    let all = text(60_000);
    let cuts = [0, 10, 20_000, 20_007, 20_009, 50_000, 60_000];
    // Packed after plain, plain after packed, packed after packed, an empty one.
    let kinds = [false, true, false, false, true, true];
    for (cut, pack) in cuts.windows(2).zip(kinds) {
        let part = &all[cut[0]..cut[1]];
        if pack {
            edge.say(FrameKind::DATA, FLAG_LZ4, &packed(part)).await;
        } else {
            edge.say(FrameKind::DATA, 0, part).await;
        }
        edge.say(FrameKind::PING, 0, b"").await;
        edge.say(FrameKind::DATA, 0, b"").await;
    }
    filled(&mut stream, 5).await;
    assert_eq!(stream.buffer()[..5], all[..5]);
    stream.consume(3);
    filled(&mut stream, 20_000).await;
    let mut at = 3;
    while at < all.len() {
        filled(&mut stream, 1).await;
        let some = stream.buffer().len().min(7001);
        assert!(stream.buffer()[..some] == all[at..at + some], "from {at}");
        stream.consume(some);
        at += some;
    }
    edge.say(FrameKind::FIN, 0, b"").await;
    while poll_fn(|cx| stream.poll_fill(cx)).await.unwrap() == Fill::Data {}
    assert!(stream.buffer().is_empty());
    let unpacked = counters.unpacked_in.load(Ordering::Relaxed);
    assert_eq!(unpacked, 19_990 + 29_991 + 10_000);
    assert!(counters.packed_in.load(Ordering::Relaxed) < unpacked / 4);
}

#[tokio::test]
async fn what_is_sent_is_packed_where_it_pays_and_never_longer() {
    let (mut stream, mut edge, counters) = stream(Compression::Auto).await;
    let all = text(65_536);
    stream.write(&all).unwrap();
    stream.write(b"short").unwrap();
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    let (kind, flags, payload) = edge.hear().await;
    assert_eq!((kind, flags), (FrameKind::DATA, FLAG_LZ4));
    assert_eq!(payload, packed(&all));
    assert_eq!(edge.hear().await, (FrameKind::DATA, 0, b"short".to_vec()));
    let packed = counters.packed_out.load(Ordering::Relaxed);
    assert_eq!(packed, payload.len() as u64);
    assert_eq!(counters.unpacked_out.load(Ordering::Relaxed), 65_536);

    let mut noise = vec![0; 65_536];
    aws_lc_rs::rand::fill(&mut noise).unwrap();
    stream.write(&noise).unwrap();
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    let (_, flags, payload) = edge.hear().await;
    assert_eq!(flags, 0);
    assert!(payload == noise);
    assert_eq!(counters.packed_out.load(Ordering::Relaxed), packed);
}

/// What a stream does with one frame that its other side would not send.
async fn ends(compression: Compression, kind: FrameKind, flags: u8, payload: &[u8]) {
    let (mut stream, mut edge, counters) = stream(compression).await;
    edge.say(kind, flags, payload).await;
    let ended = poll_fn(|cx| stream.poll_fill(cx)).await;
    assert!(matches!(ended, Err(StreamError::Protocol)), "{ended:?}");
    assert!(stream.buffer().is_empty());
    assert_eq!(counters.bad_frames.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_packed_frame_that_is_none_ends_the_channel() {
    let good = packed(&text(4096));
    let mut other_length = good.clone();
    other_length[3] ^= 1;
    let mut bomb = good.clone();
    bomb[..4].copy_from_slice(&(65_537u32).to_be_bytes());
    let data = FrameKind::DATA;
    for garbage in [
        &b""[..],
        b"\0\0\x10",
        &other_length,
        &bomb,
        &good[..good.len() - 1],
    ] {
        ends(Compression::Auto, data, FLAG_LZ4, garbage).await;
    }
    // Where a tunnel has no compression, on other kinds, with other flags.
    ends(Compression::Off, data, FLAG_LZ4, &good).await;
    ends(Compression::Auto, FrameKind::FIN, FLAG_LZ4, b"").await;
    ends(Compression::Auto, data, 2, &good).await;
    ends(Compression::Auto, data, FLAG_LZ4 | 2, &good).await;
}
