//! The HTTPS door of the program: what it says of it, and what outlives it.

use std::io::{Read, Write};
use std::net::SocketAddr;

use adit_testkit::raw::{Socket, origin};
use adit_testkit::tls::{Pair, connect, head};
use adit_testkit::wait::until_true;

use crate::lab::{Edge, Lab};

const HTTPS: [(&str, &str); 1] = [("ADIT_DOORS_HTTPS", "127.0.0.1:0")];

fn door(edge: &Edge) -> SocketAddr {
    edge.running.line("listening https ").parse().unwrap()
}

#[test]
fn the_edges_own_certificate_outlives_a_kill() {
    let lab = Lab::new();
    let edge = lab.edge_with(&any(), "", &HTTPS);
    let made = edge.running.line("certificate ");
    let status = edge.ask(&lab, &["status"]).done();
    assert!(
        status.contains(&made) && status.contains("generated"),
        "{status}"
    );
    let json = edge.ask(&lab, &["status", "--json"]).done();
    assert!(
        json.contains("\"source\":\"generated\"") && json.contains(&made),
        "{json}"
    );
    let doors = edge.doors();
    let data = adit_testkit::wait::until("the certificate is kept", || {
        crate::lab::files(&lab.path(""))
            .into_iter()
            .find(|file| file.ends_with("certificate.pem"))
    });
    let mut tls = connect(door(&edge), &data, "test");
    tls.write_all(b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")
        .unwrap();
    assert!(head(&mut tls).starts_with("HTTP/1.1 421 "));
    drop(edge.running.process.kill());
    // A process that is gone has not said that this is the end.
    let mut rest = Vec::new();
    assert!(tls.read_to_end(&mut rest).is_err());
    let edge = lab.edge_with(&doors, "", &HTTPS);
    assert_eq!(edge.running.line("certificate "), made);
    let mut tls = connect(door(&edge), &data, "test");
    tls.write_all(b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")
        .unwrap();
    assert!(head(&mut tls).starts_with("HTTP/1.1 421 "));
}

#[test]
fn a_stop_ends_tls_in_order_and_an_answer_is_not_cut() {
    let lab = Lab::new();
    let pair = Pair::new(&["app.test"]);
    let edge = lab.edge_with(&any(), &pair.table(), &HTTPS);
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let target = origin(move |mut socket: Socket| {
        socket.head();
        socket.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
        if gone.lock().unwrap().recv().is_ok() {
            socket.send("half");
        }
    });
    let agent = lab.agent(&edge, "agent", &[&target.to_string(), "--name", "app"]);
    agent.live("app");
    let door = door(&edge);
    let mut idle = connect(door, &pair.cert, "app.test");
    idle.write_all(b"GET / HTTP/1.1\r\nHost: none.test\r\n\r\n")
        .unwrap();
    assert!(head(&mut idle).starts_with("HTTP/1.1 421 "));
    let mut busy = connect(door, &pair.cert, "app.test");
    busy.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
        .unwrap();
    assert!(head(&mut busy).starts_with("HTTP/1.1 200 "));
    edge.running.process.terminate();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    go.send(()).unwrap();
    busy.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"halfhalf");
}

#[test]
fn a_configuration_tells_of_certificates_before_they_are_served() {
    let lab = Lab::new();
    let pair = Pair::new(&["app.test"]);
    let other = Pair::new(&["app.test"]);
    let text = format!(
        "[doors]\nhttps = \"127.0.0.1:8443\"\n[[certificate]]\ncert = \"{}\"\nkey = \"{}\"\n",
        pair.cert.display(),
        other.key.display()
    );
    let file = lab.file("server.toml", &text);
    let said = lab.run(&["config", "check", &file]);
    assert!(said.code != 0 && said.err.contains("ADIT-2301"), "{said:?}");
    let mended = text.replace(
        &other.key.display().to_string(),
        &pair.key.display().to_string(),
    );
    let file = lab.file("server.toml", &mended);
    // What rcgen wrote is open to everybody on this machine, as umask has it.
    let said = lab.run(&["config", "check", &file]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.err.contains("chmod 600") && said.err.contains("key.pem"),
        "{said:?}"
    );
    assert!(!said.err.contains("cert.pem"), "{said:?}");
}

/// A certificate that is about to end is told of.
#[test]
fn a_certificate_that_ends_soon_is_told_of() {
    let lab = Lab::new();
    let pair = Pair::ending(&["app.test"], 13);
    let edge = lab.edge_with(&any(), &pair.table(), &HTTPS);
    edge.running.logged("ADIT-2302");
    let later = Pair::ending(&["app.test"], 16);
    std::fs::copy(&later.key, &pair.key).unwrap();
    std::fs::copy(&later.cert, &pair.cert).unwrap();
    edge.running.logged("a changed certificate is served");
    until_true("it is counted", || {
        edge.metric("adit_tls_reloads_total") as u32 == 1
    });
    assert_eq!(edge.running.log().matches("ADIT-2302").count(), 1);
}

fn any() -> [String; 3] {
    ["127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"].map(str::to_owned)
}
