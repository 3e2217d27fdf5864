//! What happened between two reports, a second.
//!
//! Counters begin anew where an edge or a tunnel does: then all that they show
//! has happened since the earlier report, so that no rate is negative or tells
//! of the time before.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::time::Duration;

use adit_edge::control::{Report, Totals, TunnelReport};
use serde_json::{Value, json};

/// Each of them a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rate {
    /// New requests and streams.
    pub(crate) requests: f64,
    /// Bytes from visitors.
    pub(crate) bytes_in: f64,
    /// Bytes to visitors.
    pub(crate) bytes_out: f64,
}

/// The rates that belong to a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// Of all doors.
    pub(crate) total: Rate,
    /// Of the tunnels, in the order of the report.
    pub(crate) tunnels: Vec<Rate>,
    /// Between which time they were taken.
    pub(crate) interval: Duration,
}

/// A report with what happened since the one before, the busiest tunnel first.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    /// The report.
    pub(crate) report: Report,
    /// The rates; none for the first report.
    pub(crate) rates: Option<Rates>,
}

impl Moment {
    /// A report and the one before, with the time between them.
    pub(crate) fn new(mut report: Report, before: Option<(&Report, Duration)>) -> Self {
        let rates = before.map(|(before, elapsed)| rates(before, &report, elapsed));
        let known = rates.as_ref().map(|rates| rates.tunnels.as_slice());
        let mut rows: Vec<_> = std::mem::take(&mut report.tunnels)
            .into_iter()
            .enumerate()
            .map(|(at, tunnel)| {
                let rate = known.and_then(|known| known.get(at));
                (tunnel, rate.copied().unwrap_or_default())
            })
            .collect();
        rows.sort_by(busier);
        let (tunnels, sorted) = rows.into_iter().unzip();
        report.tunnels = tunnels;
        let rates = rates.map(|rates| Rates {
            tunnels: sorted,
            ..rates
        });
        Self { report, rates }
    }

    /// The report as JSON, with `rates` in the totals and in each tunnel.
    pub(crate) fn json(&self) -> Value {
        let mut all = serde_json::to_value(&self.report).unwrap_or_default();
        let Some(rates) = &self.rates else {
            return all;
        };
        all["interval_seconds"] = json!(short(rates.interval.as_secs_f64()));
        all["totals"]["rates"] = rates.total.json();
        if let Some(tunnels) = all["tunnels"].as_array_mut() {
            for (tunnel, rate) in tunnels.iter_mut().zip(&rates.tunnels) {
                tunnel["rates"] = rate.json();
            }
        }
        all
    }
}

fn busier(a: &(TunnelReport, Rate), b: &(TunnelReport, Rate)) -> Ordering {
    let flow = |(_, rate): &(_, Rate)| rate.bytes_in + rate.bytes_out;
    let faster = flow(b).total_cmp(&flow(a));
    let newer = b.1.requests.total_cmp(&a.1.requests);
    let rest = |(tunnel, _): &(TunnelReport, _)| {
        let bytes = tunnel.bytes_in.saturating_add(tunnel.bytes_out);
        (Reverse(bytes), tunnel.name.clone(), tunnel.link)
    };
    faster.then(newer).then_with(|| rest(a).cmp(&rest(b)))
}

/// What a row counts.
#[derive(Clone, Copy, Default)]
struct Counted {
    requests: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl From<&TunnelReport> for Counted {
    fn from(tunnel: &TunnelReport) -> Self {
        Self {
            requests: tunnel.requests,
            bytes_in: tunnel.bytes_in,
            bytes_out: tunnel.bytes_out,
        }
    }
}

impl From<&Totals> for Counted {
    fn from(totals: &Totals) -> Self {
        Self {
            requests: totals.requests,
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
        }
    }
}

impl Counted {
    /// What was counted since `before`. A counter that has fallen began anew,
    /// and its neighbours with it.
    fn since(self, before: Self, seconds: f64) -> Rate {
        let anew = self.requests < before.requests
            || self.bytes_in < before.bytes_in
            || self.bytes_out < before.bytes_out;
        let base = if anew { Self::default() } else { before };
        let rate = |now: u64, base: u64| (now - base) as f64 / seconds;
        Rate {
            requests: rate(self.requests, base.requests),
            bytes_in: rate(self.bytes_in, base.bytes_in),
            bytes_out: rate(self.bytes_out, base.bytes_out),
        }
    }
}

impl Rate {
    fn json(self) -> Value {
        json!({
            "requests": short(self.requests),
            "bytes_in": short(self.bytes_in),
            "bytes_out": short(self.bytes_out),
        })
    }
}

/// The rates of `now` after `elapsed`.
fn rates(before: &Report, now: &Report, elapsed: Duration) -> Rates {
    let seconds = elapsed.as_secs_f64();
    if seconds <= 0.0 {
        return Rates {
            tunnels: vec![Rate::default(); now.tunnels.len()],
            ..Rates::default()
        };
    }
    let same_run = before.started == now.started;
    let earlier: HashMap<_, _> = before
        .tunnels
        .iter()
        .filter(|_| same_run)
        .map(|tunnel| ((&tunnel.name, tunnel.link), Counted::from(tunnel)))
        .collect();
    // A report may leave out the quietest of very many tunnels: one that was
    // not in it is not always new.
    let all_known = !same_run || before.tunnels.len() as u64 >= before.totals.tunnels;
    let tunnel = |tunnel: &TunnelReport| {
        let counted = Counted::from(tunnel);
        let unknown = if all_known {
            Counted::default()
        } else {
            counted
        };
        let base = earlier.get(&(&tunnel.name, tunnel.link));
        counted.since(base.copied().unwrap_or(unknown), seconds)
    };
    let base = if same_run {
        Counted::from(&before.totals)
    } else {
        Counted::default()
    };
    Rates {
        total: Counted::from(&now.totals).since(base, seconds),
        tunnels: now.tunnels.iter().map(tunnel).collect(),
        interval: elapsed,
    }
}

/// To a thousandth.
fn short(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Duration = Duration::from_secs(2);

    fn tunnel(name: &str, link: u64, requests: u64, bytes: u64) -> TunnelReport {
        TunnelReport {
            name: name.to_owned(),
            link,
            requests,
            bytes_in: bytes,
            bytes_out: bytes * 10,
            ..TunnelReport::default()
        }
    }

    fn report(started: u64, tunnels: &[TunnelReport]) -> Report {
        Report {
            started,
            totals: Totals {
                tunnels: tunnels.len() as u64,
                requests: tunnels.iter().map(|tunnel| tunnel.requests).sum(),
                bytes_in: tunnels.iter().map(|tunnel| tunnel.bytes_in).sum(),
                bytes_out: tunnels.iter().map(|tunnel| tunnel.bytes_out).sum(),
                ..Totals::default()
            },
            tunnels: tunnels.to_vec(),
            ..Report::default()
        }
    }

    fn rate(requests: f64, bytes: f64) -> Rate {
        Rate {
            requests,
            bytes_in: bytes,
            bytes_out: bytes * 10.0,
        }
    }

    #[test]
    fn a_rate_is_what_was_added_a_second() {
        let before = report(1, &[tunnel("app", 1, 100, 1000), tunnel("db", 1, 7, 70)]);
        let now = report(1, &[tunnel("app", 1, 110, 5000), tunnel("db", 1, 7, 70)]);
        let found = rates(&before, &now, TWO);
        assert_eq!(found.tunnels, [rate(5.0, 2000.0), rate(0.0, 0.0)]);
        assert_eq!(found.total, rate(5.0, 2000.0));
    }

    #[test]
    fn an_edge_that_started_anew_counts_from_zero() {
        let before = report(1, &[tunnel("app", 1, 1_000_000, 1 << 40)]);
        // The numbers of links begin anew too.
        for (requests, bytes) in [(4, 40), (2_000_000, 1 << 41)] {
            let now = report(9, &[tunnel("app", 1, requests, bytes)]);
            let found = rates(&before, &now, TWO);
            let expected = rate(requests as f64 / 2.0, bytes as f64 / 2.0);
            assert_eq!((found.total, found.tunnels[0]), (expected, expected));
        }
    }

    #[test]
    fn a_tunnel_that_was_opened_anew_counts_from_zero() {
        let before = report(1, &[tunnel("app", 1, 100, 1000), tunnel("db", 1, 50, 10)]);
        let now = report(1, &[tunnel("app", 2, 4, 40), tunnel("db", 1, 4, 20)]);
        let found = rates(&before, &now, TWO);
        assert_eq!(found.tunnels, [rate(2.0, 20.0), rate(2.0, 10.0)]);
    }

    #[test]
    fn a_tunnel_that_had_no_room_before_is_not_new() {
        let mut before = report(1, &[tunnel("app", 1, 1, 1)]);
        before.totals.tunnels = 2;
        let now = report(1, &[tunnel("app", 1, 1, 1), tunnel("db", 1, 500, 1 << 40)]);
        assert_eq!(rates(&before, &now, TWO).tunnels[1], rate(0.0, 0.0));
    }

    #[test]
    fn no_time_between_two_reports_is_no_rate() {
        let now = report(1, &[tunnel("app", 1, 100, 1000)]);
        let found = rates(&Report::default(), &now, Duration::ZERO);
        assert_eq!(found.tunnels, [Rate::default()]);
        assert_eq!(found.total, Rate::default());
    }

    #[test]
    fn the_busiest_tunnel_stands_first() {
        let rows = |report: &Report| -> Vec<String> {
            report.tunnels.iter().map(|t| t.name.clone()).collect()
        };
        let before = report(1, &[tunnel("a", 1, 0, 0), tunnel("b", 1, 0, 900)]);
        let now = report(
            1,
            &[
                tunnel("a", 1, 9, 50),
                tunnel("b", 1, 0, 900),
                tunnel("c", 1, 0, 0),
            ],
        );
        let first = Moment::new(now.clone(), None);
        assert_eq!(rows(&first.report), ["b", "a", "c"]);
        assert!(first.json()["totals"]["rates"].is_null());
        let next = Moment::new(now, Some((&before, TWO)));
        assert_eq!(rows(&next.report), ["a", "b", "c"]);
        let json = next.json();
        assert_eq!(json["interval_seconds"], 2.0);
        assert_eq!(json["tunnels"][0]["rates"]["requests"], 4.5);
        assert_eq!(json["tunnels"][0]["rates"]["bytes_out"], 250.0);
        assert_eq!(json["totals"]["rates"]["bytes_in"], 25.0);
    }
}
