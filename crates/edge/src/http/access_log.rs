//! One line a request.

use std::time::Duration;

use adit_config::LogFormat;

use super::record::Record;
use crate::access::{AccessLog, address, escaped, member, millis, number, timestamp, word};

impl AccessLog {
    /// Adds a request's line; never waits.
    pub(super) fn add(&self, record: &Record<'_>) {
        let shown = record.shown(self.form.queries);
        let json_or_text = match self.form.format {
            LogFormat::Json => json,
            LogFormat::Text => text,
        };
        self.push(|line, now| json_or_text(line, &shown, now));
    }
}

fn json(line: &mut Vec<u8>, record: &Record<'_>, now: Duration) {
    line.extend_from_slice(b"{\"time\":\"");
    timestamp(line, now);
    line.extend_from_slice(b"\",\"kind\":\"access\",\"client\":\"");
    address(line, record.client);
    line.push(b'"');
    member(line, "id", Some(record.id));
    member(line, "method", Some(record.method));
    member(line, "host", Some(record.host));
    member(line, "path", Some(record.path));
    member(line, "query", record.query);
    line.extend_from_slice(b",\"status\":");
    number(line, record.status.into(), 1);
    line.extend_from_slice(b",\"received\":");
    number(line, record.received, 1);
    line.extend_from_slice(b",\"sent\":");
    number(line, record.sent, 1);
    line.extend_from_slice(b",\"ms\":");
    millis(line, record.took);
    if let Some(waited) = record.waited {
        line.extend_from_slice(b",\"wait_ms\":");
        millis(line, waited);
    }
    member(line, "backend", record.backend.map(str::as_bytes));
    member(line, "user_agent", record.user_agent);
    member(line, "referer", record.referer);
    if let Some(fault) = record.fault {
        member(line, "fault", Some(fault.to_string().as_bytes()));
    }
    line.push(b'}');
}

fn text(line: &mut Vec<u8>, record: &Record<'_>, now: Duration) {
    timestamp(line, now);
    line.push(b' ');
    address(line, record.client);
    line.push(b' ');
    word(line, record.host);
    line.extend_from_slice(b" \"");
    escaped(line, record.method);
    line.push(b' ');
    escaped(line, record.path);
    if let Some(query) = record.query {
        line.push(b'?');
        escaped(line, query);
    }
    line.extend_from_slice(b"\" ");
    for count in [record.status.into(), record.received, record.sent] {
        number(line, count, 1);
        line.push(b' ');
    }
    millis(line, record.took);
    line.extend_from_slice(b"ms ");
    word(line, record.backend.unwrap_or_default().as_bytes());
    line.push(b' ');
    word(line, record.id);
    if let Some(fault) = record.fault {
        line.extend_from_slice(b" (");
        escaped(line, fault.to_string().as_bytes());
        line.push(b')');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Form, Sink};
    use crate::http::record::Fault;

    const PLAIN: Form = Form {
        format: LogFormat::Text,
        queries: false,
    };

    fn record() -> Record<'static> {
        Record {
            id: b"id1",
            client: [192, 0, 2, 1].into(),
            method: b"GET",
            host: b"a.test",
            path: b"/p\"\x1b",
            query: Some(b"q=1"),
            user_agent: Some(b"curl"),
            referer: None,
            status: 200,
            received: 10,
            sent: 20,
            took: Duration::from_micros(1500),
            waited: Some(Duration::from_micros(1000)),
            backend: Some("app@x"),
            fault: Some(&Fault::Text("why")),
        }
    }

    #[test]
    fn json_lines_are_json() {
        let mut line = Vec::new();
        json(&mut line, &record(), Duration::from_millis(784_111_777_008));
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["time"], "1994-11-06T08:49:37.008Z");
        assert_eq!(value["path"], "/p\"\u{1b}");
        assert_eq!(value["ms"], 1.5);
        assert_eq!(value["wait_ms"], 1.0);
        assert_eq!(value["backend"], "app@x");
        assert_eq!(value["fault"], "why");
    }

    #[test]
    fn text_lines_are_one_line() {
        let mut line = Vec::new();
        text(&mut line, &record(), Duration::from_secs(0));
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "1970-01-01T00:00:00.000Z 192.0.2.1 a.test \"GET /p\\\"\\u001b?q=1\" \
             200 10 20 1.500ms app@x id1 (why)"
        );
    }

    #[test]
    fn queries_are_shown_to_who_asks_for_them_alone() {
        for (queries, expected) in [(false, 0), (true, 2)] {
            let sink = Sink::default();
            let format = LogFormat::Json;
            let log = AccessLog::start(Form { format, queries }, sink.clone()).unwrap();
            log.add(&Record {
                query: Some(b"token=abc"),
                referer: Some(b"http://a.test/from?token=abc"),
                ..record()
            });
            drop(log);
            let line = sink.text();
            assert_eq!(line.matches("token=abc").count(), expected, "{line}");
            assert!(line.contains("http://a.test/from"), "{line}");
        }
    }

    #[test]
    fn dropping_the_log_writes_what_waits() {
        let sink = Sink::default();
        let log = AccessLog::start(PLAIN, sink.clone()).unwrap();
        for _ in 0..1000 {
            log.add(&record());
        }
        drop(log);
        assert_eq!(sink.text().matches('\n').count(), 1000);
    }

    #[test]
    fn a_stuck_reader_costs_lines_which_are_counted() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let sink = Sink::default();
            let queries = false;
            let log = AccessLog::start(Form { format, queries }, sink.clone()).unwrap();
            let stuck = sink.0.lock().unwrap();
            for _ in 0..100_000 {
                log.add(&record());
            }
            drop(stuck);
            drop(log);
            let text = sink.text();
            let all = text.lines().count();
            let told: Vec<u64> = text.lines().filter_map(|l| told(l, format)).collect();
            let kept = u64::try_from(all - told.len()).unwrap();
            assert!(kept > 0 && !told.is_empty(), "{kept} {told:?}");
            assert_eq!(kept + told.iter().sum::<u64>(), 100_000);
        }
    }

    fn told(line: &str, format: LogFormat) -> Option<u64> {
        if !line.contains("lines were dropped") {
            return None;
        }
        if format == LogFormat::Text {
            return line.split_once(" dropped=")?.1.parse().ok();
        }
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["kind"], "log");
        line["dropped"].as_u64()
    }
}
