//! One line a visitor of a door that knows no requests: when it is gone,
//! however that came about.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_config::LogFormat;
use adit_model::{PublicKey, TunnelName};
use adit_wire::TunnelKind;
use tokio::time::Instant;

use super::{AccessLog, address, escaped, member, millis, number, timestamp, word};
use crate::backend::Backend;
use crate::traffic;

/// What a visitor's line will say; written when this is dropped. Without a log
/// it holds and does nothing.
#[derive(Debug, Default)]
pub(crate) struct Told(Option<Box<Line>>);

#[derive(Debug)]
struct Line {
    log: Arc<AccessLog>,
    kind: &'static str,
    name: TunnelName,
    client: IpAddr,
    /// Who asks, of a private tunnel.
    agent: Option<PublicKey>,
    started: Instant,
    /// Until a backend had taken it.
    waited: Option<Duration>,
    backend: Option<Arc<str>>,
    received: u64,
    sent: u64,
    end: End,
}

#[derive(Debug)]
enum End {
    /// Not yet; what stays so was cut by this edge.
    Open,
    InOrder,
    Fault(Cow<'static, str>),
}

impl Told {
    /// A visitor of a tunnel has come.
    pub(crate) fn begin(
        log: Option<&Arc<AccessLog>>,
        (kind, name): (TunnelKind, &TunnelName),
        client: IpAddr,
        agent: Option<PublicKey>,
    ) -> Self {
        Self(log.map(|log| {
            Box::new(Line {
                log: Arc::clone(log),
                kind: traffic::word(kind),
                name: name.clone(),
                client,
                agent,
                started: Instant::now(),
                waited: None,
                backend: None,
                received: 0,
                sent: 0,
                end: End::Open,
            })
        }))
    }

    /// A backend has taken it.
    pub(crate) fn taken(&mut self, backend: &Backend) {
        if let Some(line) = &mut self.0 {
            line.waited = Some(line.started.elapsed());
            line.backend = Some(Arc::clone(backend.label()));
        }
    }

    /// Bytes from and to the visitor since the last time.
    pub(crate) fn moved(&mut self, received: u64, sent: u64) {
        if let Some(line) = &mut self.0 {
            line.received += received;
            line.sent += sent;
        }
    }

    /// It has ended in order.
    pub(crate) fn ended(&mut self) {
        if let Some(line) = &mut self.0 {
            line.end = End::InOrder;
        }
    }

    /// It has not.
    pub(crate) fn fault(&mut self, why: impl Into<Cow<'static, str>>) {
        if let Some(line) = &mut self.0 {
            line.end = End::Fault(why.into());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let json_or_text = match self.log.form.format {
            LogFormat::Json => json,
            LogFormat::Text => text,
        };
        let log = Arc::clone(&self.log);
        log.push(|line, now| json_or_text(line, self, (now, took)));
    }
}

impl Line {
    fn fault(&self) -> Option<&str> {
        match &self.end {
            End::InOrder => None,
            End::Open => Some("ended by the edge"),
            End::Fault(why) => Some(why),
        }
    }
}

fn json(line: &mut Vec<u8>, visit: &Line, (now, took): (Duration, Duration)) {
    line.extend_from_slice(b"{\"time\":\"");
    timestamp(line, now);
    line.extend_from_slice(b"\",\"kind\":\"visit\",\"client\":\"");
    address(line, visit.client);
    line.push(b'"');
    if let Some(agent) = &visit.agent {
        member(line, "agent", Some(agent.to_string().as_bytes()));
    }
    member(line, "tunnel", Some(visit.name.as_str().as_bytes()));
    member(line, "carries", Some(visit.kind.as_bytes()));
    line.extend_from_slice(b",\"received\":");
    number(line, visit.received, 1);
    line.extend_from_slice(b",\"sent\":");
    number(line, visit.sent, 1);
    line.extend_from_slice(b",\"ms\":");
    millis(line, took);
    if let Some(waited) = visit.waited {
        line.extend_from_slice(b",\"wait_ms\":");
        millis(line, waited);
    }
    member(
        line,
        "backend",
        visit.backend.as_ref().map(|b| b.as_bytes()),
    );
    member(line, "fault", visit.fault().map(str::as_bytes));
    line.push(b'}');
}

fn text(line: &mut Vec<u8>, visit: &Line, (now, took): (Duration, Duration)) {
    timestamp(line, now);
    line.push(b' ');
    address(line, visit.client);
    line.push(b' ');
    word(line, visit.name.as_str().as_bytes());
    line.push(b' ');
    word(line, visit.kind.as_bytes());
    line.push(b' ');
    for count in [visit.received, visit.sent] {
        number(line, count, 1);
        line.push(b' ');
    }
    millis(line, took);
    line.extend_from_slice(b"ms ");
    word(
        line,
        visit.backend.as_deref().unwrap_or_default().as_bytes(),
    );
    if let Some(agent) = &visit.agent {
        line.extend_from_slice(b" for ");
        word(line, agent.to_string().as_bytes());
    }
    if let Some(fault) = visit.fault() {
        line.extend_from_slice(b" (");
        escaped(line, fault.as_bytes());
        line.push(b')');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Form, Sink};

    /// The lines of what `visit` does with visitors.
    fn lines(format: LogFormat, visit: impl FnOnce(&dyn Fn(TunnelKind) -> Told)) -> Vec<String> {
        let sink = Sink::default();
        let queries = false;
        let log = AccessLog::start(Form { format, queries }, sink.clone()).unwrap();
        visit(&|kind| {
            let name = TunnelName::parse("db").unwrap();
            let agent = (kind == TunnelKind::Private).then_some(PublicKey([7; 32]));
            Told::begin(Some(&log), (kind, &name), [192, 0, 2, 1].into(), agent)
        });
        drop(log);
        sink.text().lines().map(str::to_owned).collect()
    }

    #[test]
    fn each_visitor_has_one_line_however_it_ends() {
        let lines = lines(LogFormat::Json, |begin| {
            let mut first = begin(TunnelKind::Tcp);
            first.taken(&Backend::upstream("a:1"));
            first.moved(1, 2);
            first.moved(10, 20);
            first.ended();
            drop(first);
            begin(TunnelKind::Udp).fault("no agent took it");
            drop(begin(TunnelKind::Private));
        });
        let lines: Vec<serde_json::Value> = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 3);
        let [first, second, third] = [&lines[0], &lines[1], &lines[2]];
        assert_eq!(
            (&first["kind"], &first["carries"]),
            (&"visit".into(), &"tcp".into())
        );
        assert_eq!(
            (&first["client"], &first["tunnel"]),
            (&"192.0.2.1".into(), &"db".into())
        );
        assert_eq!(
            (&first["received"], &first["sent"]),
            (&11.into(), &22.into())
        );
        assert_eq!(
            (&first["backend"], &first["fault"]),
            (&"a:1".into(), &().into())
        );
        assert!(first["wait_ms"].as_f64() <= first["ms"].as_f64(), "{first}");
        assert_eq!(second["fault"], "no agent took it");
        assert_eq!(second["wait_ms"], serde_json::Value::Null);
        assert_eq!(third["fault"], "ended by the edge");
        assert_eq!(third["agent"], PublicKey([7; 32]).to_string());
    }

    #[test]
    fn text_lines_are_one_line() {
        let lines = lines(LogFormat::Text, |begin| {
            let mut told = begin(TunnelKind::Private);
            told.taken(&Backend::upstream("a:1"));
            told.moved(1, 2);
            told.fault("visitor went away");
        });
        let (_, rest) = lines[0].split_once("Z 192.0.2.1 ").unwrap();
        let key = PublicKey([7; 32]);
        assert!(rest.starts_with("db private 1 2 "), "{rest}");
        let end = format!("ms a:1 for {key} (visitor went away)");
        assert!(rest.ends_with(&end), "{rest}");
    }

    #[test]
    fn without_a_log_it_is_nothing() {
        let name = TunnelName::parse("db").unwrap();
        let client = [192, 0, 2, 1].into();
        let mut told = Told::begin(None, (TunnelKind::Tcp, &name), client, None);
        told.moved(1, 1);
        assert_eq!(size_of_val(&told), size_of::<usize>());
    }
}
