//! A report as lines for people.

use adit_edge::control::{CertificateReport, DoorReport, LinkReport, Report, TunnelReport};

use super::rates::{Moment, Rate};
use super::table::{Column, Row, Table, fit, number, text};
use super::units::{bytes, count, flow, frequency, millis, span};
use crate::failure::wrap;
use crate::terminal::plain;

/// Characters of an agent's key that tell it from others.
const KEY: usize = 8;
/// Lines below which a table says too little: its head, two rows, and how many
/// others there are.
const LEAST: usize = 4;
/// Narrower, a text of several lines is hard to read.
const NARROW: usize = 20;

/// How lines may look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Columns of the terminal.
    pub(crate) width: usize,
    /// Whether heads are bold.
    pub(crate) bold: bool,
}

/// What is shown of a tunnel.
#[derive(Clone, Copy)]
enum Rows {
    /// Where visitors find it stands below.
    WithUrls,
    /// What changes, where there is no room for both.
    Lean,
}

impl Look {
    /// A table with its head painted, at most so many lines.
    pub(super) fn table(self, table: &Table, most: usize) -> Vec<String> {
        let mut lines = table.lines(self.width, most);
        if let Some(head) = lines.first_mut().filter(|_| self.bold) {
            *head = format!("\x1b[1m{head}\x1b[0m");
        }
        lines
    }

    /// A text that is never cut: it may take several lines.
    pub(crate) fn whole(self, text: &str) -> Vec<String> {
        let room = self.width.saturating_sub(2).max(NARROW);
        let lines = wrap(&plain(text), room).into_iter().enumerate();
        let lines = lines.map(|(at, line)| match at {
            0 => line,
            _ => format!("  {line}"),
        });
        lines.collect()
    }

    /// One line, cut where it is too long.
    pub(super) fn sentence(self, text: &str) -> Vec<String> {
        vec![fit(text, self.width)]
    }
}

/// `adit status`: everything.
pub(crate) fn status(report: &Report, look: Look) -> Vec<String> {
    let moment = Moment {
        report: report.clone(),
        rates: None,
    };
    let most = usize::MAX;
    let head = look.sentence(&head(report));
    let blocks = [
        head,
        doors(report, look),
        certificates(report, look),
        links(report, look, most),
        tunnels(&moment, look, Rows::WithUrls, most),
        totals(&moment, look),
        kept_out(report, look),
    ];
    let blocks: Vec<_> = blocks
        .into_iter()
        .filter(|block| !block.is_empty())
        .collect();
    blocks.join(&String::new())
}

/// `adit top`: as much as there is room for, what changes least is left out
/// first. A `notice` stands where it is not overlooked.
pub(crate) fn top(moment: &Moment, notice: Option<&str>, look: Look, height: usize) -> Vec<String> {
    let report = &moment.report;
    let about = head(report);
    let head = look.sentence(&match notice {
        Some(notice) => format!("{notice}; {about}"),
        None => format!("{about}; Ctrl-C ends it"),
    });
    let totals = totals(moment, look);
    // Blank lines stand between head, totals, tunnels and links.
    let room = height.saturating_sub(head.len() + totals.len() + 3);
    let doors = doors(report, look);
    let all_links = links(report, look, usize::MAX);
    let whole = tunnels(moment, look, Rows::WithUrls, usize::MAX);
    let lean = tunnels(moment, look, Rows::Lean, usize::MAX);
    let fits = |tunnels: &Vec<String>| tunnels.len() + all_links.len() <= room;
    let mut blocks = vec![head, totals];
    if fits(&whole) {
        let left = room - whole.len() - all_links.len();
        blocks.extend([whole, all_links]);
        if doors.len() < left {
            blocks.push(doors);
        }
    } else if fits(&lean) {
        blocks.extend([lean, all_links]);
    } else {
        // A third for the links, unless the tunnels leave more.
        let most = (room / 3).max(room.saturating_sub(lean.len()));
        let links = links(report, look, most);
        let rest = room.saturating_sub(links.len());
        if most >= LEAST && rest >= LEAST {
            blocks.extend([tunnels(moment, look, Rows::Lean, rest), links]);
        } else {
            blocks.push(tunnels(moment, look, Rows::Lean, room + 1));
        }
    }
    let mut lines = blocks.join(&String::new());
    lines.truncate(height);
    lines
}

fn head(report: &Report) -> String {
    let (version, up) = (&report.version, span(report.uptime_seconds));
    let many = |number: u64, what: &str| {
        let end = if number == 1 { "" } else { "s" };
        format!("{} {what}{end}", count(number))
    };
    let links = many(report.totals.links, "link");
    let tunnels = many(report.totals.tunnels, "tunnel");
    format!("adit {version}, up {up}, {links}, {tunnels}")
}

fn doors(report: &Report, look: Look) -> Vec<String> {
    let row = |door: &DoorReport| {
        let ports = door.ports.as_ref();
        let ports = ports.map_or_else(String::new, |ports| format!(", ports {ports}"));
        vec![door.door.clone(), format!("{}{ports}", door.address)].into()
    };
    let columns = vec![text("DOOR"), text("ADDRESS").cut(1)];
    let rows = report.doors.iter().map(row).collect();
    look.table(&Table::new(columns, rows), usize::MAX)
}

fn certificates(report: &Report, look: Look) -> Vec<String> {
    if report.certificates.is_empty() {
        return Vec::new();
    }
    let row = |one: &CertificateReport| {
        let left = one.not_after.saturating_sub(report.time);
        let ends = match left {
            0 => "over".to_owned(),
            left => format!("in {}", span(left)),
        };
        vec![
            one.names.join(", "),
            one.source.clone(),
            ends,
            one.sha256.clone(),
        ]
        .into()
    };
    let columns = vec![
        text("CERTIFICATE").cut(2),
        text("FROM"),
        text("ENDS"),
        text("SHA-256").cut(1),
    ];
    let rows = report.certificates.iter().map(row).collect();
    look.table(&Table::new(columns, rows), usize::MAX)
}

fn totals(moment: &Moment, look: Look) -> Vec<String> {
    let totals = &moment.report.totals;
    let mut columns = vec![text("TOTAL").cut(5)];
    let mut cells = vec!["all doors".to_owned()];
    let counted = Figures {
        visitors: totals.visitors,
        requests: totals.requests,
        failures: totals.failures,
        bytes_in: totals.bytes_in,
        bytes_out: totals.bytes_out,
        rate: moment.rates.as_ref().map(|rates| rates.total),
    };
    columns.extend(figures(counted.rate.is_some()));
    cells.extend(counted.cells());
    look.table(&Table::new(columns, vec![cells.into()]), usize::MAX)
}

/// Whom the owner's limits and rules have kept out, if anybody.
fn kept_out(report: &Report, look: Look) -> Vec<String> {
    let (banned, refused) = (report.totals.banned, report.totals.refused);
    let banned = match banned {
        0 => None,
        1 => Some("1 address is banned".to_owned()),
        many => Some(format!("{} addresses are banned", count(many))),
    };
    let refused = match refused {
        0 => None,
        1 => Some("1 request or visitor was turned away".to_owned()),
        many => Some(format!(
            "{} requests and visitors were turned away",
            count(many)
        )),
    };
    let said: Vec<_> = banned.into_iter().chain(refused).collect();
    if said.is_empty() {
        return Vec::new();
    }
    look.sentence(&said.join(", "))
}

fn links(report: &Report, look: Look, most: usize) -> Vec<String> {
    if report.links.is_empty() {
        return look.sentence("no agent is connected");
    }
    let columns = vec![
        text("AGENT"),
        text("ADDRESS").cut(12).leaves(1),
        number("UP").leaves(2),
        number("RTT"),
        text("CARRIER"),
        number("IDLE"),
        number("BUSY"),
    ];
    let row = |link: &LinkReport| {
        vec![
            short(&link.agent),
            link.address.clone(),
            span(report.time.saturating_sub(link.since)),
            link.rtt_us.map_or_else(|| "-".to_owned(), millis),
            link.carrier.clone(),
            count(link.idle_channels as u64),
            count(link.busy_channels as u64),
        ]
        .into()
    };
    let rows = report.links.iter().map(row).collect();
    let table = Table::new(columns, rows).of(report.totals.links);
    look.table(&table, most)
}

fn tunnels(moment: &Moment, look: Look, show: Rows, most: usize) -> Vec<String> {
    let report = &moment.report;
    if report.tunnels.is_empty() {
        return look.sentence("no tunnel is open");
    }
    let mut columns = vec![
        text("TUNNEL").cut(6),
        text("KIND").leaves(4),
        text("AGENT").leaves(3),
    ];
    columns.extend(figures(moment.rates.is_some()));
    let row = |(at, tunnel): (usize, &TunnelReport)| {
        let rates = moment.rates.as_ref();
        let rate = rates.map(|rates| rates.tunnels.get(at).copied().unwrap_or_default());
        let row = tunnel_row(tunnel, rate);
        match show {
            Rows::WithUrls => row,
            Rows::Lean => Row { below: None, ..row },
        }
    };
    let rows = report.tunnels.iter().enumerate().map(row).collect();
    let table = Table::new(columns, rows).of(report.totals.tunnels);
    look.table(&table, most)
}

fn tunnel_row(tunnel: &TunnelReport, rate: Option<Rate>) -> Row {
    let counted = Figures {
        visitors: tunnel.visitors,
        requests: tunnel.requests,
        failures: tunnel.failures,
        bytes_in: tunnel.bytes_in,
        bytes_out: tunnel.bytes_out,
        rate,
    };
    let mut cells = vec![
        tunnel.name.clone(),
        tunnel.kind.clone(),
        short(&tunnel.agent),
    ];
    cells.extend(counted.cells());
    let url = tunnel.url.as_deref().unwrap_or("nowhere");
    Row {
        cells,
        below: Some(format!("{url} -> {}{}", tunnel.target, lost(tunnel.drops))),
    }
}

fn lost(drops: u64) -> String {
    match drops {
        0 => String::new(),
        1 => ", 1 datagram dropped".to_owned(),
        many => format!(", {} datagrams dropped", count(many)),
    }
}

/// What is counted of a tunnel and of all doors alike.
struct Figures {
    visitors: u64,
    requests: u64,
    failures: u64,
    bytes_in: u64,
    bytes_out: u64,
    rate: Option<Rate>,
}

/// The columns of [`Figures::cells`]. With rates they are as wide as they may
/// become, so that nothing moves from one frame to the next.
fn figures(rates: bool) -> Vec<Column> {
    let amount = |head| number(head).wide(if rates { 7 } else { 0 });
    let mut columns = vec![
        number("NOW"),
        number("EVER").wide(if rates { 5 } else { 0 }).leaves(2),
        number("FAILED").leaves(1),
    ];
    if rates {
        let new = number("NEW/S").wide(5);
        columns.extend([new, amount("IN/S"), amount("OUT/S")]);
    }
    let turn = if rates { 5 } else { 0 };
    columns.extend(["IN", "OUT"].map(|head| amount(head).leaves(turn)));
    columns
}

impl Figures {
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![
            count(self.visitors),
            count(self.requests),
            count(self.failures),
        ];
        if let Some(rate) = self.rate {
            cells.push(frequency(rate.requests));
            cells.extend([rate.bytes_in, rate.bytes_out].map(flow));
        }
        cells.extend([self.bytes_in, self.bytes_out].map(bytes));
        cells
    }
}

/// Enough of a key to tell agents apart.
pub(super) fn short(key: &str) -> String {
    let key = key.strip_prefix("ed25519:").unwrap_or(key);
    key.chars().take(KEY).collect()
}

#[cfg(test)]
mod tests;
