//! Each tunnel's counters, by name and kind.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use adit_model::TunnelName;

use super::page::Page;
use crate::traffic::Sum;

/// Most tunnels of a page, the busiest: some megabytes. Names come from agents
/// that were let in, and hold letters, digits and hyphens alone.
const MOST: usize = 10_000;

type Sums = BTreeMap<(TunnelName, &'static str), Sum>;

/// The end of the page of `GET /metrics`.
pub(crate) fn page(sums: &Sums) -> String {
    let mut rows: Vec<_> = sums.iter().collect();
    if rows.len() > MOST {
        rows.sort_by_key(|(_, sum)| Reverse((sum.agents.min(1), sum.ever)));
        rows.truncate(MOST);
        rows.sort_by_key(|(whose, _)| *whose);
    }
    let rows: Vec<_> = rows
        .into_iter()
        .map(|((name, kind), sum)| (format!("tunnel=\"{name}\",kind=\"{kind}\""), *kind, sum))
        .collect();
    let mut page = Page::default();
    let mut family = |(name, help): (&str, &str), of: fn(&Sum) -> u64| {
        let kind = if name.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        let rows = rows.iter();
        let rows = rows.map(|(labels, _, sum)| (format!("{{{labels}}}"), of(sum)));
        page.rows((name, help, kind), rows);
    };
    let about = ("adit_tunnel_agents", "Agents that serve the tunnel now.");
    family(about, |sum| sum.agents);
    let help = "Requests and streams of the tunnel under way now.";
    family(("adit_tunnel_visitors_open", help), |sum| sum.open);
    let help = "Requests and streams that the tunnel took.";
    family(("adit_tunnel_visitors_total", help), |sum| sum.ever);
    let help = "Requests and streams that an agent or its service did not take or did not end.";
    family(("adit_tunnel_failures_total", help), |sum| sum.failures);
    let ways = |(labels, _, sum): &(String, &str, &Sum)| {
        [("in", sum.bytes_in), ("out", sum.bytes_out)]
            .map(|(way, bytes)| (format!("{{{labels},direction=\"{way}\"}}"), bytes))
    };
    let help = "Bytes from and to visitors of the tunnel.";
    let about = ("adit_tunnel_bytes_total", help, "counter");
    page.rows(about, rows.iter().flat_map(ways));
    let help = "Datagrams of the tunnel's flows that were dropped.";
    let about = ("adit_tunnel_drops_total", help, "counter");
    let udp = rows.iter().filter(|(_, kind, _)| *kind == "udp");
    let drops = udp.map(|(labels, _, sum)| (format!("{{{labels}}}"), sum.drops));
    page.rows(about, drops);
    page.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tunnel_has_a_line_in_each_family() {
        let name = |text| TunnelName::parse(text).unwrap();
        let sum = Sum {
            agents: 1,
            open: 2,
            ever: 30,
            failures: 4,
            bytes_in: 500,
            bytes_out: 600,
            drops: 7,
        };
        let sums = Sums::from([((name("app"), "http"), sum), ((name("dns"), "udp"), sum)]);
        let page = page(&sums);
        crate::metrics::tests::check(&page);
        for line in [
            "adit_tunnel_agents{tunnel=\"app\",kind=\"http\"} 1",
            "adit_tunnel_visitors_open{tunnel=\"dns\",kind=\"udp\"} 2",
            "adit_tunnel_visitors_total{tunnel=\"app\",kind=\"http\"} 30",
            "adit_tunnel_failures_total{tunnel=\"app\",kind=\"http\"} 4",
            "adit_tunnel_bytes_total{tunnel=\"app\",kind=\"http\",direction=\"in\"} 500",
            "adit_tunnel_bytes_total{tunnel=\"dns\",kind=\"udp\",direction=\"out\"} 600",
            "adit_tunnel_drops_total{tunnel=\"dns\",kind=\"udp\"} 7",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
        assert!(!page.contains("drops_total{tunnel=\"app\""), "{page}");
    }

    #[test]
    fn a_page_has_room_for_the_busiest() {
        let name = |number| TunnelName::parse(&format!("t{number}")).unwrap();
        let sums: Sums = (0..MOST as u64 + 5)
            .map(|ever| {
                let sum = Sum {
                    ever,
                    ..Sum::default()
                };
                ((name(ever), "tcp"), sum)
            })
            .collect();
        let page = page(&sums);
        let lines = page
            .lines()
            .filter(|l| l.starts_with("adit_tunnel_agents{"));
        assert_eq!(lines.count(), MOST);
        assert!(!page.contains("tunnel=\"t4\""), "the least busy");
    }
}
