//! Compression: fewer bytes cross the link, every one arrives, and what does
//! not compress costs nothing.

use std::net::SocketAddr;

use adit_agent::Compression;
use adit_testkit::raw::{Socket, free_ports, origin};
use adit_testkit::wait::until_true;
use adit_testkit::world::{AgentPlan, World};

const LENGTH: usize = 4_000_000;

fn text() -> Vec<u8> {
    let lines = (0u32..).flat_map(|n| {
        format!(
            "2026-03-01T12:{:02}:{:02} GET /item/{n} 200 ok\n",
            n / 60 % 60,
            n % 60
        )
        .into_bytes()
    });
    lines.take(LENGTH).collect()
}

/// Bytes that do not compress.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(LENGTH).collect()
}

/// Says back what it is told.
fn echo() -> SocketAddr {
    origin(|socket: Socket| socket.echo())
}

/// Sends bytes through a tunnel and back; the bytes of data channels that
/// they took, each way.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn carried(compression: Option<Compression>, bytes: &[u8]) -> [f64; 2] {
    let ports = free_ports(1);
    let world = World::with_doors(&format!("tcp_ports = \"{}\"\n", ports[0]), "");
    let mut plan = AgentPlan::tcp(&world, "echo", echo(), None);
    plan.settings.tunnels[0].compression = compression;
    let agent = world.start_agent(plan);
    agent.wait_live("echo");
    let mut visitor = Socket::dial(SocketAddr::from(([127, 0, 0, 1], ports[0])));
    let writer = visitor.stream().try_clone().unwrap();
    let (came, clean) = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::io::Write::write_all(&mut &writer, bytes).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        visitor.rest()
    });
    assert!(clean && came == bytes, "{} of {}", came.len(), bytes.len());
    until_true("the stream is counted", || {
        world.metric("adit_tcp_bytes_total{direction=\"out\"}") >= LENGTH as f64
            && world.metric("adit_connections_open{door=\"tcp\"}") < 1.0
    });
    let read = |name: &str, way: &str| world.metric(&format!("{name}{{direction=\"{way}\"}}"));
    // The gauges follow the counters each second.
    until_true("the link's bytes are counted", || {
        let moved = |way| {
            let saved = read("adit_link_unpacked_bytes_total", way)
                - read("adit_link_packed_bytes_total", way);
            read("adit_link_bytes_total", way) + saved >= LENGTH as f64
        };
        moved("in") && moved("out")
    });
    ["in", "out"].map(|way| read("adit_link_bytes_total", way))
}

#[test]
fn text_takes_less_of_the_link_both_ways_and_arrives_whole() {
    let text = text();
    for compression in [None, Some(Compression::Auto), Some(Compression::Always)] {
        for way in carried(compression, &text) {
            assert!(way < LENGTH as f64 / 2.0, "{compression:?}: {way}");
        }
    }
    for way in carried(Some(Compression::Off), &text) {
        assert!(way > LENGTH as f64, "{way}");
    }
}

#[test]
fn what_does_not_compress_grows_by_nothing() {
    let noise = noise();
    let plain = carried(Some(Compression::Off), &noise);
    for compression in [Compression::Auto, Compression::Always] {
        let ways = carried(Some(compression), &noise);
        for (way, plain) in ways.into_iter().zip(plain) {
            // Frames are cut where reads end, which differs from run to run.
            assert!(way < plain * 1.01, "{compression:?}: {way} for {plain}");
        }
    }
}
