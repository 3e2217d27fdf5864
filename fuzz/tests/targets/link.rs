//! The link: frames on the wire, first messages, and whole handshakes in which
//! one transmission was altered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_fuzz::{edited, holds, scripted, target};
use adit_link_proto::{
    AgentEvent, AgentFresh, AgentHandshake, EdgeEvent, EdgeFresh, EdgeHandshake, First, Opener,
    Packer, PeerEvent, PeerForwarder, PeerFresh, PeerTarget, PskKeys, Scratch, Sealer, Suite,
    Suites, Timing, plain_len, unpack,
};
use adit_model::{Identity, InstanceId, LinkId, Psk, PublicKey, TunnelName};
use adit_wire::{AuthOk, Compression, FrameKind, HEAD, LENGTH, MAX_PAYLOAD, TAG};

pub(crate) const UNIX: u64 = 1_750_000_000;

/// Compressed payloads: whatever comes gives as many bytes as it says, at most
/// a frame's, or is refused; what is given packs and comes back.
#[test]
fn compressed() {
    target("compressed", |input| {
        let Ok(length) = plain_len(input) else {
            return;
        };
        assert!(length <= MAX_PAYLOAD && length > input.len());
        let mut plain = vec![0; length];
        if unpack(input, &mut plain).is_err() {
            return;
        }
        let mut packer = Packer::new(Compression::Always).unwrap();
        let mut scratch = Scratch::default();
        if let Some(packed) = packer.pack(&plain, &mut scratch) {
            assert!(packed.len() < plain.len());
            let mut again = vec![1; plain.len()];
            assert_eq!(plain_len(packed), Ok(plain.len()));
            unpack(packed, &mut again).expect("what was packed");
            assert!(again == plain);
        }
    });
}

#[test]
fn the_corpus_has_compressed_payloads() {
    let text = b"a line of a log that is like the others, ".repeat(40);
    let runs = [vec![0; 2000], (0..=255).collect(), vec![7; 65_536 - 2256]].concat();
    let mut scratch = Scratch::default();
    for (name, plain) in [("text", text), ("runs", runs)] {
        let mut packer = Packer::new(Compression::Always).unwrap();
        let packed = packer.pack(&plain, &mut scratch).unwrap();
        holds("compressed", name, packed);
    }
}

/// A stream of sealed frames, edited: what opens is what was sealed, in its
/// order; after the first frame that does not open, none does.
#[test]
fn frames() {
    scripted("frames", |script| {
        let (suite, lengths) = match script.split_first() {
            Some((first, rest)) if first % 2 == 0 => (Suite::Aes256Gcm, rest),
            Some((_, rest)) => (Suite::ChaCha20Poly1305, rest),
            None => (Suite::ChaCha20Poly1305, script),
        };
        let mut sealer = Sealer::with_period(suite, [7; 32], 3).unwrap();
        let frames: Vec<Vec<u8>> = lengths
            .iter()
            .take(6)
            .enumerate()
            .map(|(number, length)| sealed(&mut sealer, number, usize::from(*length)))
            .collect();
        let stream = edited(&[frames.concat()], lengths.get(6..).unwrap_or_default());
        let mut opener = Opener::with_period(suite, [7; 32], 3).unwrap();
        let mut expected = frames.into_iter().enumerate();
        let mut rest = stream.as_slice();
        while let Some(head) = rest.first_chunk::<LENGTH>() {
            let Ok(length) = Opener::frame_len(head) else {
                break;
            };
            let Some((frame, after)) = rest.split_at_checked(length) else {
                break;
            };
            rest = after;
            let mut buffer = frame.to_vec();
            let Ok(opened) = opener.open(&mut buffer) else {
                // Over for good, whatever comes.
                assert!(opener.open(&mut frame.to_vec()).is_err());
                break;
            };
            let (number, original) = expected.next().expect("no more opens than was sealed");
            assert_eq!(frame, original);
            assert_eq!(opened.kind, FrameKind::DATA);
            assert_eq!(opened.stream as usize, number);
            assert!(buffer[opened.payload].iter().all(|b| *b == number as u8));
        }
    });
}

fn sealed(sealer: &mut Sealer, number: usize, length: usize) -> Vec<u8> {
    let mut frame = vec![number as u8; HEAD + length + TAG];
    let stream = u32::try_from(number).unwrap();
    sealer.seal(FrameKind::DATA, 0, stream, &mut frame).unwrap();
    frame
}

pub(crate) fn psk() -> PskKeys {
    PskKeys::new(&Psk::from_random(std::array::from_fn(|i| (i * 37) as u8)))
}

pub(crate) fn edge_identity() -> Identity {
    Identity::from_seed([1; 32]).unwrap()
}

fn agent_identity() -> Identity {
    Identity::from_seed([2; 32]).unwrap()
}

pub(crate) fn agent() -> AgentHandshake {
    AgentHandshake::start(
        &psk(),
        edge_identity().public(),
        Arc::new(agent_identity()),
        InstanceId([3; 16]),
        UNIX,
        AgentFresh {
            ephemeral: [4; 32],
            nonce: [5; 16],
        },
        Suites { aes: true },
        "0.1.0",
    )
    .unwrap()
}

/// Nothing but the one message that the secret's holder made is proved.
#[test]
fn first_messages() {
    let keys = psk();
    let edge = edge_identity().public();
    let genuine = agent().poll_transmit().unwrap();
    target("first", move |input| {
        let Ok(bytes) = input.try_into() else { return };
        let first = First::parse(bytes);
        let shown = format!("{:?} {} {:?}", first.id(), first.unix(), first.nonce());
        assert!(!shown.is_empty());
        let proved = first.prove_link(&keys, &edge).is_some();
        assert_eq!(proved, input == genuine);
        assert!(first.prove_link(&keys, &PublicKey([8; 32])).is_none());
    });
}

#[test]
fn the_corpus_has_the_first_message() {
    holds("first", "link", &agent().poll_transmit().unwrap());
}

/// One transmission of a handshake is altered: its receiver does not go on.
#[test]
fn handshakes() {
    let start = Instant::now();
    scripted("handshakes", move |script| {
        let (alter, script) = match script.split_first() {
            Some((first, rest)) => (first % 4, rest),
            None => (0, script),
        };
        handshake(alter, script, start);
    });
}

fn handshake(alter: u8, script: &[u8], now: Instant) {
    let change = |step: u8, bytes: Vec<u8>| {
        let received = if step == alter {
            edited(std::slice::from_ref(&bytes), script)
        } else {
            bytes.clone()
        };
        // What follows a whole transmission is the next one's business.
        let whole = received.starts_with(&bytes);
        (received, whole)
    };
    let mut agent = agent();
    let (first, whole) = change(0, drain(|| agent.poll_transmit()));
    let Some(bytes) = first.first_chunk() else {
        return;
    };
    let (keys, identity) = (psk(), edge_identity());
    let Some(proved) = First::parse(bytes).prove_link(&keys, &identity.public()) else {
        assert!(!whole);
        return;
    };
    assert!(whole);
    let fresh = EdgeFresh {
        ephemeral: [6; 32],
        nonce: [7; 16],
    };
    let suites = Suites { aes: true };
    let mut edge = EdgeHandshake::start(&proved, &keys, &identity, fresh, suites, now).unwrap();

    let (answer, whole) = change(1, drain(|| edge.poll_transmit()));
    feed(&answer, script, |part| agent.handle_input(part).is_ok());
    let hello = drain(|| agent.poll_transmit());
    assert!(
        whole || hello.is_empty(),
        "the agent answered an altered edge"
    );
    if hello.is_empty() {
        return;
    }

    let (hello, whole) = change(2, hello);
    feed(&hello, script, |part| edge.handle_input(part).is_ok());
    let Some(EdgeEvent::AgentProved { identity, .. }) = edge.poll_event() else {
        return;
    };
    assert!(whole, "the edge took an altered agent");
    assert_eq!(identity, agent_identity().public());

    let timing = Timing {
        heartbeat: Duration::from_secs(10),
        dead: Duration::from_secs(20),
    };
    let Ok((last, _session)) = edge.admit(&welcome(), timing, now) else {
        return;
    };
    let (last, whole) = change(3, last);
    feed(&last, script, |part| agent.handle_input(part).is_ok());
    if agent.poll_event() == Some(AgentEvent::Live) {
        assert!(whole, "the agent took an altered welcome");
        if let Ok((auth, _)) = agent.finish(now) {
            assert_eq!(auth, welcome());
        }
    }
}

pub(crate) fn welcome() -> AuthOk {
    AuthOk {
        link: LinkId(1),
        agent_secret: None,
        url_pattern: "http://{name}.localhost:8080".into(),
        heartbeat_ms: 10_000,
        dead_ms: 20_000,
        idle_channels: 8,
        max_channels: 64,
        version: "0.1.0".into(),
        doors: Vec::new(),
    }
}

pub(crate) fn drain(poll: impl FnMut() -> Option<Vec<u8>>) -> Vec<u8> {
    std::iter::from_fn(poll).collect::<Vec<_>>().concat()
}

/// In pieces of sizes that the script says.
fn feed(bytes: &[u8], script: &[u8], mut take: impl FnMut(&[u8]) -> bool) {
    let mut sizes = script.iter().rev().map(|size| usize::from(*size) + 1);
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(rest.len()).min(rest.len());
        let (part, after) = rest.split_at(size);
        if !take(part) {
            return;
        }
        rest = after;
    }
}

/// The same between two agents of a private tunnel, where the edge is who
/// alters: nobody is let in, and nobody believes to be.
#[test]
fn peers() {
    scripted("peers", |script| match script.split_first() {
        Some((first, rest)) => meet(first % 4, rest),
        None => meet(0, script),
    });
}

fn meet(alter: u8, script: &[u8]) {
    let mut whole = true;
    let mut change = |step: u8, bytes: Vec<u8>| {
        if step != alter {
            return (bytes, whole);
        }
        let received = edited(std::slice::from_ref(&bytes), script);
        whole = received.starts_with(&bytes);
        (received, whole)
    };
    let fresh = |seed| PeerFresh {
        ephemeral: [seed; 32],
        nonce: [seed; 16],
    };
    let (name, both) = (TunnelName::parse("db").unwrap(), Suites { aes: true });
    let (own, other) = (Arc::new(agent_identity()), Arc::new(edge_identity()));
    let wanted = other.public();
    let started = PeerForwarder::start(name.clone(), wanted, own.clone(), fresh(4), both);
    let mut forwarder = started.unwrap();
    let mut target = PeerTarget::start(name, other, fresh(6), both);

    let (first, _) = change(0, drain(|| forwarder.poll_transmit()));
    hand(&first, script, |waiting| target.handle_input(waiting).ok());
    let (answer, whole) = change(1, drain(|| target.poll_transmit()));
    hand(&answer, script, |waiting| {
        forwarder.handle_input(waiting).ok()
    });
    let hello = drain(|| forwarder.poll_transmit());
    assert!(
        whole || hello.is_empty(),
        "the forwarder told who it is over an altered way"
    );

    let (hello, whole) = change(2, hello);
    hand(&hello, script, |waiting| target.handle_input(waiting).ok());
    let Some(PeerEvent::Proved(identity)) = target.poll_event() else {
        return;
    };
    assert!(whole, "the target took an altered forwarder");
    assert_eq!(identity, own.public());
    target.decide(true).unwrap();

    let (verdict, whole) = change(3, drain(|| target.poll_transmit()));
    hand(&verdict, script, |waiting| {
        forwarder.handle_input(waiting).ok()
    });
    let event = forwarder.poll_event();
    assert!(
        whole || event.is_none(),
        "the forwarder took an altered verdict"
    );
    assert_eq!(forwarder.finish().is_ok(), event == Some(PeerEvent::Live));
}

/// In pieces, to a side that takes what is whole off the front.
fn hand(bytes: &[u8], script: &[u8], mut take: impl FnMut(&[u8]) -> Option<usize>) {
    let mut waiting = Vec::new();
    feed(bytes, script, |part| {
        waiting.extend_from_slice(part);
        let taken = take(&waiting);
        waiting.drain(..taken.unwrap_or_default());
        taken.is_some()
    });
}
