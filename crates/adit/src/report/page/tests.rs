use std::time::Duration;

use adit_edge::control::Totals;

use super::super::rates::Rates;
use super::*;

fn look(width: usize) -> Look {
    Look { width, bold: false }
}

fn door(door: &str, address: &str) -> DoorReport {
    DoorReport {
        door: door.to_owned(),
        address: address.to_owned(),
        ports: (door == "tcp").then(|| "2200-2299".to_owned()),
    }
}

fn link(number: u64, rtt_us: Option<u64>) -> LinkReport {
    LinkReport {
        link: number,
        agent: format!("ed25519:Qm3xYt{number}abcdefghijklmno"),
        address: format!("203.0.113.{number}:51234"),
        since: 1_800_000_000 - 4000 * number,
        rtt_us,
        carrier: "tcp".to_owned(),
        idle_channels: 1,
        busy_channels: 3,
    }
}

fn tunnel(name: &str, kind: &str, requests: u64) -> TunnelReport {
    TunnelReport {
        name: name.to_owned(),
        kind: kind.to_owned(),
        url: Some(format!("{kind}://{name}.example.test")),
        target: "http://localhost:3000".to_owned(),
        link: 1,
        agent: link(1, None).agent,
        visitors: 2,
        requests,
        failures: 1,
        bytes_in: requests * 412,
        bytes_out: requests * 145_000,
        drops: 0,
    }
}

fn report() -> Report {
    Report {
        version: "0.1.0".to_owned(),
        time: 1_800_000_000,
        started: 1_799_987_000,
        uptime_seconds: 13_000,
        doors: vec![
            door("http", "0.0.0.0:80"),
            door("link", "0.0.0.0:7400"),
            door("api", "127.0.0.1:7401"),
            door("tcp", "0.0.0.0"),
        ],
        certificates: Vec::new(),
        links: vec![link(1, Some(412)), link(2, None)],
        tunnels: vec![
            tunnel("app", "http", 310),
            tunnel("a-name-that-is-long", "tcp", 7),
        ],
        totals: Totals {
            links: 2,
            tunnels: 2,
            visitors: 4,
            requests: 1234,
            failures: 5,
            bytes_in: 1_300_000,
            bytes_out: 45_200_000,
            drops: 0,
            refused: 0,
            banned: 0,
        },
    }
}

fn moment() -> Moment {
    let rate = |requests: f64| Rate {
        requests,
        bytes_in: requests * 412.0,
        bytes_out: requests * 145_000.0,
    };
    Moment {
        report: report(),
        rates: Some(Rates {
            total: rate(13.5),
            tunnels: vec![rate(13.5), rate(0.0)],
            interval: Duration::from_secs(2),
        }),
    }
}

#[track_caller]
fn shows(lines: &[String], golden: &str) {
    assert_eq!(format!("\n{}\n", lines.join("\n")), golden);
}

#[test]
fn a_status_in_80_columns() {
    shows(
        &status(&report(), look(80)),
        "
adit 0.1.0, up 3 h, 2 links, 2 tunnels

DOOR  ADDRESS
http  0.0.0.0:80
link  0.0.0.0:7400
api   127.0.0.1:7401
tcp   0.0.0.0, ports 2200-2299

AGENT     ADDRESS                UP      RTT  CARRIER  IDLE  BUSY
Qm3xYt1a  203.0.113.1:51234  66 min  0.41 ms  tcp         1     3
Qm3xYt2a  203.0.113.2:51234     2 h        -  tcp         1     3

TUNNEL               KIND  AGENT     NOW  EVER  FAILED      IN      OUT
app                  http  Qm3xYt1a    2   310       1  128 kB  45.0 MB
  http://app.example.test -> http://localhost:3000
a-name-that-is-long  tcp   Qm3xYt1a    2     7       1  2.9 kB   1.0 MB
  tcp://a-name-that-is-long.example.test -> http://localhost:3000

TOTAL      NOW  EVER  FAILED      IN      OUT
all doors    4  1234       5  1.3 MB  45.2 MB
",
    );
}

#[test]
fn a_status_in_40_columns() {
    shows(
        &status(&report(), look(40)),
        "
adit 0.1.0, up 3 h, 2 links, 2 tunnels

DOOR  ADDRESS
http  0.0.0.0:80
link  0.0.0.0:7400
api   127.0.0.1:7401
tcp   0.0.0.0, ports 2200-2299

AGENT         RTT  CARRIER  IDLE  BUSY
Qm3xYt1a  0.41 ms  tcp         1     3
Qm3xYt2a        -  tcp         1     3

TUNNEL      NOW  FAILED      IN      OUT
app           2       1  128 kB  45.0 MB
  http://app.example.test -> http://loc…
a-name-th…    2       1  2.9 kB   1.0 MB
  tcp://a-name-that-is-long.example.tes…

TOTAL      NOW  FAILED      IN      OUT
all doors    4       5  1.3 MB  45.2 MB
",
    );
}

#[test]
fn rates_in_80_columns() {
    shows(
        &top(&moment(), None, look(80), 23),
        "
adit 0.1.0, up 3 h, 2 links, 2 tunnels; Ctrl-C ends it

TOTAL      NOW   EVER  FAILED  NEW/S     IN/S    OUT/S       IN      OUT
all doors    4   1234       5     14   5.6 kB   2.0 MB   1.3 MB  45.2 MB

TUNNEL               KIND  AGENT     NOW   EVER  FAILED  NEW/S     IN/S    OUT/S
app                  http  Qm3xYt1a    2    310       1     14   5.6 kB   2.0 MB
  http://app.example.test -> http://localhost:3000
a-name-that-is-long  tcp   Qm3xYt1a    2      7       1      0        0        0
  tcp://a-name-that-is-long.example.test -> http://localhost:3000

AGENT     ADDRESS                UP      RTT  CARRIER  IDLE  BUSY
Qm3xYt1a  203.0.113.1:51234  66 min  0.41 ms  tcp         1     3
Qm3xYt2a  203.0.113.2:51234     2 h        -  tcp         1     3

DOOR  ADDRESS
http  0.0.0.0:80
link  0.0.0.0:7400
api   127.0.0.1:7401
tcp   0.0.0.0, ports 2200-2299
",
    );
}

#[test]
fn rates_in_100_columns_show_the_sums_too() {
    shows(
        &top(&moment(), None, look(100), 50),
        "
adit 0.1.0, up 3 h, 2 links, 2 tunnels; Ctrl-C ends it

TOTAL      NOW   EVER  FAILED  NEW/S     IN/S    OUT/S       IN      OUT
all doors    4   1234       5     14   5.6 kB   2.0 MB   1.3 MB  45.2 MB

TUNNEL               KIND  AGENT     NOW   EVER  FAILED  NEW/S     IN/S    OUT/S       IN      OUT
app                  http  Qm3xYt1a    2    310       1     14   5.6 kB   2.0 MB   128 kB  45.0 MB
  http://app.example.test -> http://localhost:3000
a-name-that-is-long  tcp   Qm3xYt1a    2      7       1      0        0        0   2.9 kB   1.0 MB
  tcp://a-name-that-is-long.example.test -> http://localhost:3000

AGENT     ADDRESS                UP      RTT  CARRIER  IDLE  BUSY
Qm3xYt1a  203.0.113.1:51234  66 min  0.41 ms  tcp         1     3
Qm3xYt2a  203.0.113.2:51234     2 h        -  tcp         1     3

DOOR  ADDRESS
http  0.0.0.0:80
link  0.0.0.0:7400
api   127.0.0.1:7401
tcp   0.0.0.0, ports 2200-2299
",
    );
}

#[test]
fn rates_on_a_small_terminal() {
    shows(
        &top(&moment(), Some("NO ANSWER for 4 s"), look(40), 12),
        "
NO ANSWER for 4 s; adit 0.1.0, up 3 h, …

TOTAL      NOW  NEW/S     IN/S    OUT/S
all doors    4     14   5.6 kB   2.0 MB

TUNNEL      NOW  NEW/S     IN/S    OUT/S
app           2     14   5.6 kB   2.0 MB
a-name-th…    2      0        0        0

AGENT         RTT  CARRIER  IDLE  BUSY
Qm3xYt1a  0.41 ms  tcp         1     3
Qm3xYt2a        -  tcp         1     3
",
    );
}

#[test]
fn an_edge_without_agents_says_so() {
    let mut idle = report();
    (idle.links, idle.tunnels, idle.totals) = (vec![], vec![], Totals::default());
    shows(
        &status(&idle, look(80)),
        "
adit 0.1.0, up 3 h, 0 links, 0 tunnels

DOOR  ADDRESS
http  0.0.0.0:80
link  0.0.0.0:7400
api   127.0.0.1:7401
tcp   0.0.0.0, ports 2200-2299

no agent is connected

no tunnel is open

TOTAL      NOW  EVER  FAILED   IN  OUT
all doors    0     0       0  0 B  0 B
",
    );
}

#[test]
fn heads_are_bold_where_colour_is_shown() {
    let look = Look {
        width: 40,
        bold: true,
    };
    let lines = status(&report(), look);
    let plain = status(
        &report(),
        Look {
            bold: false,
            ..look
        },
    );
    assert!(lines.contains(&"\u{1b}[1mDOOR  ADDRESS\u{1b}[0m".to_owned()));
    let unpainted = lines.join("\n").replace("\u{1b}[1m", "");
    assert_eq!(unpainted.replace("\u{1b}[0m", ""), plain.join("\n"));
}

#[test]
fn nothing_is_higher_or_wider_than_the_terminal() {
    let mut crowd = moment();
    crowd.report.links = (0..15).map(|n| link(n, Some(n))).collect();
    crowd.report.tunnels = (0..40)
        .map(|n| tunnel(&format!("t{n}"), "http", n))
        .collect();
    for height in (1..60).step_by(3) {
        for width in (20..120).step_by(9) {
            let lines = top(&crowd, None, look(width), height);
            assert!(lines.len() <= height, "{height}: {lines:#?}");
            let widest = lines.iter().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width), "{width}: {lines:#?}");
        }
    }
}

#[test]
fn what_agents_send_cannot_steer_the_terminal() {
    let mut report = report();
    report.tunnels[0].target = "\u{1b}[2J\n".to_owned();
    report.links[0].agent = "\u{1b}]0;".to_owned();
    let lines = status(&report, look(80));
    let steers = |line: &String| line.chars().any(char::is_control);
    assert!(!lines.iter().any(steers), "{lines:#?}");
}

#[test]
fn certificates_have_a_table_where_there_are_some() {
    let certificates = vec![
        CertificateReport {
            names: vec!["example.test".to_owned(), "*.example.test".to_owned()],
            source: "file".to_owned(),
            not_after: 1_800_000_000 + 90 * 86_400,
            sha256: "AB:CD".to_owned(),
        },
        CertificateReport {
            names: vec!["old.test".to_owned()],
            source: "generated".to_owned(),
            not_after: 1_700_000_000,
            sha256: "EF:01".to_owned(),
        },
    ];
    let report = Report {
        certificates,
        ..report()
    };
    let lines = status(&report, look(80));
    let at = lines
        .iter()
        .position(|line| line.starts_with("CERTIFICATE"));
    let table = &lines[at.unwrap()..][..3];
    shows(
        table,
        "
CERTIFICATE                   FROM       ENDS     SHA-256
example.test, *.example.test  file       in 90 d  AB:CD
old.test                      generated  over     EF:01
",
    );
}

#[test]
fn who_was_kept_out_is_told() {
    let mut busy = report();
    let last = |report: &Report| status(report, look(80)).pop().unwrap();
    (busy.totals.banned, busy.totals.refused) = (1, 0);
    assert_eq!(last(&busy), "1 address is banned");
    (busy.totals.banned, busy.totals.refused) = (2, 41);
    assert_eq!(
        last(&busy),
        "2 addresses are banned, 41 requests and visitors were turned away"
    );
    (busy.totals.banned, busy.totals.refused) = (0, 1);
    assert_eq!(last(&busy), "1 request or visitor was turned away");
}
