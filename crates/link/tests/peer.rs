//! Two agents inside a private tunnel, and an edge between them that reads,
//! alters, repeats and cuts what it carries.

#![expect(clippy::unwrap_used, reason = "code for tests alone")]

use std::future::poll_fn;
use std::sync::Arc;

use adit_link::{Duplex, Fill, PeerFailure, PeerStream, Stream, StreamError};
use adit_link_proto::{PeerForwarder, PeerFresh, PeerTarget, Suites};
use adit_model::{Identity, PublicKey, TunnelName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SECRET: &[u8] = b"what only the two agents may read: 0123456789 ";
const BOTH: Suites = Suites { aes: true };

fn identity(seed: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed([seed; 32]).unwrap())
}

fn fresh(seed: u8) -> PeerFresh {
    PeerFresh {
        ephemeral: [seed; 32],
        nonce: [seed; 16],
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// What the edge does to byte `at` of what the forwarder sends.
#[derive(Clone, Copy)]
enum Evil {
    Nothing,
    Flip(usize),
    Cut(usize),
}

/// Carries one direction and keeps what it saw.
async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    evil: Evil,
) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut bytes = vec![0; 4096];
    while let Ok(count) = from.read(&mut bytes).await {
        if count == 0 {
            break;
        }
        let mut part = bytes[..count].to_vec();
        match evil {
            Evil::Flip(at) if (seen.len()..seen.len() + count).contains(&at) => {
                part[at - seen.len()] ^= 1;
            }
            Evil::Cut(at) if seen.len() + count > at => {
                part.truncate(at.saturating_sub(seen.len()));
            }
            _ => {}
        }
        seen.extend_from_slice(&bytes[..count]);
        if to.write_all(&part).await.is_err() {
            break;
        }
        if matches!(evil, Evil::Cut(at) if seen.len() > at) {
            break;
        }
    }
    let _ = to.shutdown().await;
    seen
}

struct Seen {
    sent: Result<(), String>,
    came: Result<Vec<u8>, String>,
    who: Option<PublicKey>,
    wire: Vec<u8>,
}

async fn say(stream: &mut PeerStream, mut bytes: &[u8]) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        let room = stream.spare(bytes.len());
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        stream.commit(count)?;
        bytes = &bytes[count..];
        poll_fn(|cx| stream.poll_flush(cx)).await?;
    }
    stream.finish();
    poll_fn(|cx| stream.poll_flush(cx)).await
}

async fn hear(stream: &mut PeerStream) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    loop {
        all.extend_from_slice(stream.buffer());
        let count = stream.buffer().len();
        stream.consume(count);
        if poll_fn(|cx| stream.poll_fill(cx)).await? == Fill::End {
            return Ok(all);
        }
    }
}

/// The forwarder sends `bytes` to the target by way of an edge.
async fn run(bytes: &[u8], evil: Evil) -> Seen {
    let (one, near) = pair().await;
    let (far, other) = pair().await;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let up = carry(near_read, far_write, evil);
    let down = carry(far_read, near_write, Evil::Nothing);
    let name = TunnelName::parse("db").unwrap();
    let wanted = identity(2).public();
    let forwarder =
        PeerForwarder::start(name.clone(), wanted, identity(1), fresh(3), BOTH).unwrap();
    let target = PeerTarget::start(name, identity(2), fresh(4), BOTH);
    let sending = async {
        let met = PeerStream::connect(Stream::plain(one), forwarder).await;
        let mut stream = met.map_err(|error| error.to_string())?;
        let said = say(&mut stream, bytes).await;
        said.map_err(|error| error.to_string())?;
        // Whatever comes back, it is heard to its end.
        let _ = hear(&mut stream).await;
        Ok(())
    };
    let mut who = None;
    let hearing = async {
        let listed = identity(1).public();
        let met = PeerStream::accept(Stream::plain(other), target, |key| *key == listed).await;
        let (mut stream, key) = met.map_err(|error: PeerFailure| error.to_string())?;
        who = Some(key);
        let heard = hear(&mut stream).await.map_err(|error| error.to_string())?;
        let said = say(&mut stream, b"thanks").await;
        said.map_err(|error| error.to_string())?;
        Ok(heard)
    };
    let (sent, came, mut wire, answered) = tokio::join!(sending, hearing, up, down);
    wire.extend(answered);
    Seen {
        sent,
        came,
        who,
        wire,
    }
}

#[tokio::test]
async fn bytes_arrive_whole_and_the_edge_reads_none_of_them() {
    let bytes = SECRET.repeat(20_000);
    let seen = run(&bytes, Evil::Nothing).await;
    assert_eq!(seen.sent, Ok(()));
    assert!(seen.came.unwrap() == bytes);
    assert_eq!(seen.who, Some(identity(1).public()));
    assert!(seen.wire.len() > bytes.len());
    // Neither the bytes nor who the two are.
    let keys = [identity(1).public().0, identity(2).public().0];
    for hidden in [&SECRET[..16], &keys[0], &keys[1], b"thanks"] {
        let found = seen.wire.windows(hidden.len()).any(|part| part == hidden);
        assert!(!found, "{hidden:?}");
    }
}

#[tokio::test]
async fn an_edge_that_alters_a_byte_is_noticed_wherever_it_is() {
    let bytes = SECRET.repeat(40);
    let whole = run(&bytes, Evil::Nothing).await;
    assert!(whole.came.is_ok());
    // Of the handshake, of lengths, of data, of the end.
    for at in [0, 3, 25, 52, 60, 150, 220, 260, 300, 700, 1500, 2000] {
        let seen = run(&bytes, Evil::Flip(at)).await;
        // Three bytes of the first message are not looked at, but signed.
        assert!(seen.came.is_err(), "byte {at}");
    }
}

#[tokio::test]
async fn a_stream_that_the_edge_cuts_off_never_ends_in_order() {
    let bytes = SECRET.repeat(40);
    for at in [0, 30, 60, 200, 400, 1000, 2050] {
        let seen = run(&bytes, Evil::Cut(at)).await;
        assert!(seen.came.is_err(), "cut at {at}");
    }
}
