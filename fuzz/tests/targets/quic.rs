//! What a stranger can send to a QUIC door, and datagrams beside a stream.

use std::time::{Duration, Instant};

use adit_fuzz::{edited, holds, scripted, target};
use adit_link_proto::{
    DATAGRAM_OVERHEAD, DatagramFlow, DatagramKeys, EdgeFresh, EdgeHandshake, First, KNOCK_LEN,
    Knock, Purpose, QuicStart, Role, Suites, Timing, datagram_index,
};

use crate::link::{UNIX, agent, drain, edge_identity, psk, welcome};

/// The first datagram of a connection, as far as the door looks at it.
fn first_datagram() -> Vec<u8> {
    let knock = Knock::make(&psk(), &edge_identity().public(), UNIX, [1, 2, 3, 4]);
    let mut datagram = vec![0xc3, 0, 0, 0, 1, KNOCK_LEN as u8];
    datagram.extend_from_slice(knock.bytes());
    datagram.resize(1200, 7);
    datagram
}

/// Whatever comes is looked at without a panic, and only the knock that was
/// made proves the secret.
#[test]
fn knocks() {
    let (keys, edge, made) = (psk(), edge_identity().public(), first_datagram());
    target("knocks", move |datagram| match QuicStart::of(datagram) {
        QuicStart::Short => assert!(datagram[0] < 0x80),
        QuicStart::Foreign => {}
        QuicStart::Long(id) => {
            assert!(id.len() <= KNOCK_LEN && datagram[1..5] == [0, 0, 0, 1]);
            let Ok(knock) = <&[u8; KNOCK_LEN]>::try_from(id) else {
                return;
            };
            let proves = Knock::parse(knock).fits(&keys, &edge);
            assert_eq!(proves, knock[..] == made[6..6 + KNOCK_LEN]);
        }
    });
}

#[test]
fn the_corpus_has_knocks() {
    let made = first_datagram();
    holds("knocks", "knock", &made);
    holds(
        "knocks",
        "own-id",
        &[&made[..5], &[10], &made[6..16]].concat(),
    );
    holds("knocks", "no-id", &[&made[..5], &[0]].concat());
    holds("knocks", "short", &[&[0x43], &made[6..40]].concat());
}

/// The keys of one channel of a link: the agent's and the edge's.
fn keys() -> [DatagramKeys; 2] {
    let (now, identity) = (Instant::now(), edge_identity());
    let mut agent = agent();
    let first = drain(|| agent.poll_transmit());
    let first = First::parse(first.first_chunk().unwrap());
    let proved = first.prove_link(&psk(), &identity.public()).unwrap();
    let fresh = EdgeFresh {
        ephemeral: [6; 32],
        nonce: [7; 16],
    };
    let suites = Suites { aes: true };
    let mut edge = EdgeHandshake::start(&proved, &psk(), &identity, fresh, suites, now).unwrap();
    agent.handle_input(&drain(|| edge.poll_transmit())).unwrap();
    edge.handle_input(&drain(|| agent.poll_transmit())).unwrap();
    let timing = Timing {
        heartbeat: Duration::from_secs(10),
        dead: Duration::from_secs(20),
    };
    let (last, on_edge) = edge.admit(&welcome(), timing, now).unwrap();
    agent.handle_input(&last).unwrap();
    let (_, on_agent) = agent.finish(now).unwrap();
    let purpose = Purpose::Streams;
    let (_, channel) = on_agent.keys.channel_header(3, [8; 16], UNIX, purpose);
    let of = |keys: &adit_link_proto::SessionKeys, role| keys.datagrams(&channel, [9; 16], role);
    [
        of(&on_agent.keys, Role::Agent).unwrap(),
        of(&on_edge.keys, Role::Edge).unwrap(),
    ]
}

/// Datagrams of one flow, edited, repeated and in any order: what opens is what
/// was sealed, and each does so once.
#[test]
fn datagrams() {
    let [agent, edge] = keys();
    let plains: Vec<Vec<u8>> = [0, 1, 100, 1200].map(|length| vec![5; length]).into();
    let mut sender = DatagramFlow::new(4, 2);
    let sealed: Vec<_> = plains
        .iter()
        .map(|plain| sender.seal(&agent, plain).unwrap())
        .collect();
    scripted("datagrams", move |script| {
        let (mut receiver, mut opened) = (DatagramFlow::new(4, 2), [false; 4]);
        for step in script.chunks(24) {
            let Some((which, edits)) = step.split_first() else {
                return;
            };
            let at = usize::from(which % 4);
            let came = match which & 0x80 {
                0 => sealed[at].clone(),
                _ => edited(&sealed[at..=at], edits),
            };
            let _index = datagram_index(&came);
            let mut plain = Vec::new();
            let took = receiver.open(&edge, &came, &mut plain);
            let whole = sealed.iter().position(|sealed| *sealed == came);
            assert_eq!(took, whole.is_some_and(|at| !opened[at]));
            if let Some(at) = whole.filter(|_| took) {
                assert!(plain == plains[at] && came.len() == plain.len() + DATAGRAM_OVERHEAD);
                opened[at] = true;
            }
        }
    });
}

#[test]
fn the_corpus_has_datagrams() {
    let all: Vec<u8> = (0..4)
        .flat_map(|which| [[which; 1], [0]])
        .flatten()
        .collect();
    holds("datagrams", "pairs", &all);
    let twice: Vec<u8> = [[3; 24], [3; 24], [0x81; 24], [1; 24]].concat();
    holds("datagrams", "twice", &twice);
}
