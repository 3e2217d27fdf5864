//! The network that tests make does what it says.

#![expect(clippy::unwrap_used, reason = "what is shared by tests")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use adit_testkit::network::{Condition, End, Network, Protocol};
use adit_testkit::peers::program;
use adit_testkit::process::Process;
use adit_testkit::proxies::Proxy;
use adit_testkit::wait::{DEADLINE, until_true};

/// Answers at an end with what it is sent, on this port of both protocols.
fn echo(end: &End, port: u16) -> SocketAddr {
    let address = SocketAddr::from((end.address(), port));
    let (tcp, udp) = end.inside(|| {
        let tcp = TcpListener::bind(address).unwrap();
        (tcp, UdpSocket::bind(address).unwrap())
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut back = stream.try_clone().unwrap();
                std::io::copy(&mut stream, &mut back)
            });
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            udp.send_to(&buffer[..length], from).unwrap();
        }
    });
    address
}

fn connect(from: &End, to: SocketAddr) -> TcpStream {
    let stream = from.inside(|| TcpStream::connect_timeout(&to, DEADLINE).unwrap());
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn ask(stream: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    begun.elapsed()
}

fn udp(from: &End, to: SocketAddr) -> UdpSocket {
    let socket = from.inside(|| UdpSocket::bind((from.address(), 0)).unwrap());
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

#[test]
fn a_packet_takes_the_time_that_was_set() {
    let network = Network::new(&["home", "away"]);
    let to = echo(network.end("away"), 7);
    let mut stream = connect(network.end("home"), to);
    network.set(&[Condition::Delay(Duration::from_millis(40))]);
    let times: Vec<_> = (0..5).map(|_| ask(&mut stream)).collect();
    let least = times.iter().min().unwrap();
    assert!(*least >= Duration::from_millis(80), "{times:?}");
    assert!(*least < Duration::from_millis(160), "{times:?}");
}

#[test]
fn a_share_of_the_packets_is_lost_and_counted_the_same_for_the_same_seed() {
    let network = Network::new(&["home", "away"]);
    let to = SocketAddr::from((network.end("away").address(), 9));
    let run = || {
        let before = network.counts("home", "away");
        network.set(&[Condition::Loss(0.1), Condition::Seed(7)]);
        // Not connected: it is not told that nobody listens there.
        let home = network.end("home");
        let socket = home.inside(|| UdpSocket::bind((home.address(), 0)).unwrap());
        for _ in 0..1000 {
            socket.send_to(b"x", to).unwrap();
        }
        until_true("every packet was counted", || {
            let now = network.counts("home", "away");
            now.packets + now.lost == before.packets + before.lost + 1000
        });
        network.counts("home", "away").lost - before.lost
    };
    let lost = run();
    assert!((60..140).contains(&lost), "{lost}");
    assert_eq!(run(), lost);
}

#[test]
fn udp_can_be_blocked_while_tcp_passes() {
    let network = Network::new(&["home", "away"]);
    let to = echo(network.end("away"), 7);
    let socket = udp(network.end("home"), to);
    socket.send(b"one").unwrap();
    assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 3);
    network.set(&[Condition::Udp(false)]);
    socket.send(b"two").unwrap();
    until_true("the datagram was dropped", || {
        network.counts("home", "away").udp == 1
    });
    ask(&mut connect(network.end("home"), to));
    network.set(&[Condition::Udp(true)]);
    socket.send(b"three").unwrap();
    assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 5);
    assert_eq!(network.seen("home", "away", Protocol::Udp, 7), 3);
}

#[test]
fn one_port_can_be_the_only_one_that_passes() {
    let network = Network::new(&["home", "away"]);
    let (closed, open) = (echo(network.end("away"), 7), echo(network.end("away"), 443));
    network.set(&[Condition::OnlyPort(443)]);
    ask(&mut connect(network.end("home"), open));
    let short = Duration::from_millis(300);
    let failed = network
        .end("home")
        .inside(|| TcpStream::connect_timeout(&closed, short));
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(network.counts("home", "away").port >= 1);
    assert!(network.seen("home", "away", Protocol::Tcp, 443) > 2);
}

#[test]
fn packets_above_a_size_vanish_without_a_word() {
    let network = Network::new(&["home", "away"]);
    let to = echo(network.end("away"), 7);
    let socket = udp(network.end("home"), to);
    network.set(&[Condition::Mtu(1400)]);
    // 20 bytes of IP and 8 of UDP in front.
    for length in [1372, 1373] {
        socket.send(&vec![0; length]).unwrap();
    }
    assert_eq!(socket.recv(&mut [0; 2048]).unwrap(), 1372);
    until_true("the larger one vanished", || {
        network.counts("home", "away").hole == 1
    });
}

#[test]
fn what_is_cut_goes_on_where_it_was_when_it_is_whole_again() {
    let network = Network::new(&["home", "away"]);
    let to = echo(network.end("away"), 7);
    let mut stream = connect(network.end("home"), to);
    ask(&mut stream);
    network.set(&[Condition::Cut(true)]);
    stream.write_all(b"x").unwrap();
    until_true("it did not pass", || network.counts("home", "away").cut > 0);
    network.set(&[Condition::Cut(false)]);
    stream.read_exact(&mut [0]).unwrap();
}

#[test]
fn no_more_passes_than_the_rate_and_the_queue_let_through() {
    let network = Network::new(&["home", "away"]);
    let to = echo(network.end("away"), 7);
    let mut stream = connect(network.end("home"), to);
    let queue = Condition::Queue(64 * 1024);
    network.set_way("home", "away", &[Condition::Rate(20.0), queue]);
    let mut reader = stream.try_clone().unwrap();
    let begun = Instant::now();
    let writer = std::thread::spawn(move || stream.write_all(&vec![0; 1 << 20]));
    let mut left = vec![0; 1 << 20];
    reader.read_exact(&mut left).unwrap();
    writer.join().unwrap().unwrap();
    // 8 Mbit of data at 20 Mbit/s, of which the queue may be ahead.
    assert!(begun.elapsed() > Duration::from_millis(390));
    assert!(
        network.counts("home", "away").full > 0,
        "nothing was too much"
    );
}

#[test]
fn an_address_that_nobody_has_never_answers_and_one_more_can_be_taken() {
    let network = Network::new(&["home", "away"]);
    echo(network.end("away"), 7);
    let short = Duration::from_millis(300);
    let dial = |to: SocketAddr| {
        let home = network.end("home");
        home.inside(|| TcpStream::connect_timeout(&to, short))
    };
    let away = network.end("away");
    for hole in [
        (away.more_address(9), 7).into(),
        (away.more_address6(9), 7).into(),
        SocketAddr::from(([192, 0, 2, 1], 7)),
    ] {
        let error = dial(hole).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{hole}");
    }
    away.take(away.more_address(9).into());
    away.take(away.more_address6(9).into());
    for address in [
        SocketAddr::from((away.more_address(9), 7)),
        (away.more_address6(9), 7).into(),
        (away.address6(), 7).into(),
    ] {
        // Nobody listens there, but now somebody says so.
        let error = dial(address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
    }
}

#[test]
fn a_proxy_can_be_the_only_way_out() {
    let network = Network::new(&["home", "proxy", "away"]);
    let to = echo(network.end("away"), 7);
    network.set_between("home", "away", &[Condition::Cut(true)]);
    let login = ("me", "secret");
    let http = Proxy::http(network.end("proxy"), &[7], Some(login));
    let socks = Proxy::socks(network.end("proxy"), Some(login));
    let curl = |proxy: &str, words: &[&str]| {
        let mut command = network.end("home").command(program("curl"));
        command
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "2",
                "--proxy",
                proxy,
            ])
            .args(words)
            .env_remove("no_proxy");
        Process::run(command)
    };
    // What echoes is no HTTP server: it says back what it was asked.
    let target = format!("http://{to}/");
    let asked = [
        "--http0.9",
        "--proxytunnel",
        "--max-filesize",
        "20",
        &target,
    ];
    for proxy in [
        format!("http://me:secret@{}", http.address),
        format!("socks5://me:secret@{}", socks.address),
    ] {
        let ended = curl(&proxy, &asked);
        assert!(
            ended.text().contains("GET / HTTP/1.1"),
            "{proxy}: {}",
            ended.text()
        );
    }
    for proxy in [
        format!("http://me:wrong@{}", http.address),
        format!("socks5://{}", socks.address),
    ] {
        let ended = curl(&proxy, &asked);
        assert!(
            !ended.text().contains("GET / HTTP/1.1"),
            "{proxy}: {}",
            ended.text()
        );
        assert!(!ended.status.success());
    }
    let ended = curl("", &["--connect-timeout", "0.3", &target]);
    assert!(!ended.status.success(), "{}", ended.text());
}

#[test]
fn a_program_inside_reads_the_hosts_that_it_was_given() {
    let network = Network::new(&["home"]);
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "10.73.9.9 one.test\n10.73.9.8 one.test\n").unwrap();
    let home = network.end("home");
    let mut command = home.command_with_hosts(&hosts, program("getent"));
    command.args(["ahostsv4", "one.test"]);
    let said = Process::run(command).text();
    assert!(
        said.contains("10.73.9.9") && said.contains("10.73.9.8"),
        "{said}"
    );
}
