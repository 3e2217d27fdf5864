//! Events of an agent in, lines out. No terminal, no clock.

use std::time::{Duration, Instant};

use adit_agent::{AgentEvent, Refusal, Visitor};
use adit_model::{Carrier, Code, TunnelName};

use crate::{advice, terminal};

/// Rows of tunnels that are shown when the height is not known.
const ROWS: usize = 12;

/// What goes on for long is told so often where there is no live view.
const TELL_AGAIN: Duration = Duration::from_secs(300);
/// Causes that are known as told.
const MOST_TOLD: usize = 64;

/// What is known of the agent.
pub(crate) struct Board {
    link: Link,
    rtt: Option<Duration>,
    tunnels: Vec<Tunnel>,
    problem: Option<Problem>,
    told: Vec<ToldCause>,
    told_visitors: u64,
}

/// Why there is no link, or why a tunnel is refused, and when that was told.
#[derive(PartialEq, Eq)]
struct ToldCause {
    tunnel: Option<TunnelName>,
    why: String,
    at: Instant,
}

enum Link {
    Starting,
    Connecting(String),
    Connected(String),
    Waiting(Duration),
    Ending {
        line: String,
        /// No link carries the last streams.
        away: bool,
    },
}

struct Tunnel {
    name: TunnelName,
    target: String,
    state: State,
    open: u32,
    ever: u64,
}

enum State {
    Live(String),
    Refused,
    Trouble(String),
}

struct Problem {
    code: Option<Code>,
    what: String,
    remedy: Vec<String>,
    since: Instant,
}

/// What an event means for a pipe.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing.
    Nothing,
    /// A line on stdout that scripts wait for.
    Ready(String),
    /// Something that a person must know, into the log.
    Problem {
        /// Its code.
        code: Option<Code>,
        /// What happened and why.
        what: String,
        /// Who must do what.
        remedy: String,
    },
    /// Something worth a line in the log.
    News(String),
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            link: Link::Starting,
            rtt: None,
            tunnels: Vec::new(),
            problem: None,
            told: Vec::new(),
            told_visitors: 0,
        }
    }

    /// Takes an event in.
    pub(crate) fn take(&mut self, event: AgentEvent, now: Instant) -> Told {
        match event {
            AgentEvent::Connecting { addresses } => {
                self.link = Link::Connecting(addresses.join(", "));
                Told::Nothing
            }
            AgentEvent::Connected {
                edge,
                peer,
                carrier,
                version,
            } => {
                self.link = Link::Connected(match carrier {
                    Carrier::Tcp => peer.to_string(),
                    carrier => format!("{peer} by {carrier}"),
                });
                self.problem = None;
                self.told.clear();
                tracing::debug!(target: "adit", %version, "the edge's version");
                Told::Ready(format!("connected {peer} {edge} {carrier}"))
            }
            AgentEvent::Live {
                tunnel,
                url,
                target,
            } => {
                let line = format!("live {tunnel} {url} {target}");
                self.told.retain(|one| one.tunnel.as_ref() != Some(&tunnel));
                let row = self.row(&tunnel);
                row.target = target;
                row.state = State::Live(url);
                Told::Ready(terminal::plain(&line))
            }
            AgentEvent::Visitor(visitor) => {
                self.visitor(&visitor);
                Told::Nothing
            }
            AgentEvent::Rtt(rtt) => {
                self.rtt = Some(rtt);
                Told::Nothing
            }
            other => self.take_trouble(other, now),
        }
    }

    fn take_trouble(&mut self, event: AgentEvent, now: Instant) -> Told {
        match event {
            AgentEvent::Lost {
                code,
                why,
                retry_in,
            } => {
                self.link = Link::Waiting(retry_in);
                self.rtt = None;
                let again = format!("{why}; next try in {}", seconds(retry_in));
                let told = self.problem(Some(code), &again, remedy_of(code), now);
                self.seldom(None, why, told, now)
            }
            AgentEvent::Refused(refusal) => self.refused(&refusal, now),
            AgentEvent::TunnelRefused {
                tunnel,
                code,
                text,
                retry_in,
            } => {
                self.row(&tunnel).state = State::Refused;
                let what = format!("{tunnel}: {text}; asked again in {}", seconds(retry_in));
                let code = Code::from_number(code);
                let remedy = code.map(remedy_of).unwrap_or_default();
                let told = self.problem(code, &what, remedy, now);
                self.seldom(Some(tunnel), text, told, now)
            }
            AgentEvent::TunnelTrouble { tunnel, code, text } => {
                self.row(&tunnel).state = State::Trouble(text.clone());
                let code = Code::from_number(code);
                let what = format!("{tunnel}: {text}");
                self.problem(code, &what, code.map(remedy_of).unwrap_or_default(), now)
            }
            AgentEvent::TargetTrouble { tunnel, code, why } => {
                let what = behind(&tunnel, code, &why);
                self.problem(Some(code), &what, remedy_of(code), now)
            }
            AgentEvent::NotSaved { why } => self.problem(
                Some(Code::DATA_UNREADABLE),
                &why,
                remedy_of(Code::DATA_UNREADABLE),
                now,
            ),
            AgentEvent::InsecureTarget { tunnel, target } => Told::News(format!(
                "{tunnel}: the certificate of {target} is not checked, as configured"
            )),
            AgentEvent::Draining { seconds } => {
                self.ending("the edge is going away".to_owned());
                Told::News(format!(
                    "the edge is going away within {seconds} s; connecting again ({})",
                    Code::DRAINING
                ))
            }
            AgentEvent::Stopping { streams } => {
                let line = format!("stopping, {streams} open streams may end");
                self.ending(line.clone());
                Told::News(line)
            }
            // The command ends with these and says so itself.
            _ => Told::Nothing,
        }
    }

    fn refused(&mut self, refusal: &Refusal, now: Instant) -> Told {
        let Some(retry_in) = refusal.retry_in else {
            return Told::Nothing;
        };
        self.link = Link::Waiting(retry_in);
        let code = refusal.code();
        let what = format!("{}; next try in {}", code.title, seconds(retry_in));
        let told = self.problem(Some(code), &what, refusal.remedies(), now);
        self.seldom(None, code.title.to_owned(), told, now)
    }

    /// What comes back with each try is told once, and then now and then.
    fn seldom(
        &mut self,
        tunnel: Option<TunnelName>,
        why: String,
        told: Told,
        now: Instant,
    ) -> Told {
        let is_same = |one: &ToldCause| one.tunnel == tunnel && one.why == why;
        if let Some(at) = self.told.iter().position(is_same) {
            let known = self.told.remove(at);
            if now.saturating_duration_since(known.at) < TELL_AGAIN {
                self.told.push(known);
                return Told::Nothing;
            }
        }
        if self.told.len() == MOST_TOLD {
            self.told.remove(0);
        }
        let at = now;
        self.told.push(ToldCause { tunnel, why, at });
        match told {
            Told::Problem { code, what, remedy } => Told::Problem {
                code,
                what: format!("{what}, and so on until it works"),
                remedy,
            },
            other => other,
        }
    }

    fn problem(
        &mut self,
        code: Option<Code>,
        what: &str,
        remedy: Vec<String>,
        since: Instant,
    ) -> Told {
        let what = terminal::plain(what);
        let told = Told::Problem {
            code,
            what: what.clone(),
            remedy: remedy.join("; "),
        };
        self.problem = Some(Problem {
            code,
            what,
            remedy,
            since,
        });
        told
    }

    fn visitor(&mut self, visitor: &Visitor) {
        let row = self.row(&visitor.tunnel);
        row.open = visitor.open;
        row.ever = visitor.ever;
    }

    fn row(&mut self, name: &TunnelName) -> &mut Tunnel {
        let at = self.tunnels.iter().position(|row| row.name == *name);
        let at = at.unwrap_or_else(|| {
            self.tunnels.push(Tunnel {
                name: name.clone(),
                target: String::new(),
                state: State::Refused,
                open: 0,
                ever: 0,
            });
            self.tunnels.len() - 1
        });
        &mut self.tunnels[at]
    }

    /// The number of visitors for a pipe, when it has changed.
    pub(crate) fn count_line(&mut self) -> Option<String> {
        let ever: u64 = self.tunnels.iter().map(|row| row.ever).sum();
        let open: u32 = self.tunnels.iter().map(|row| row.open).sum();
        (ever != self.told_visitors).then(|| {
            self.told_visitors = ever;
            format!("visitors {open} {ever}")
        })
    }

    /// The live view.
    pub(crate) fn lines(&self, now: Instant, width: usize) -> Vec<String> {
        let mut lines = vec![self.link_line(), String::new()];
        let away = self.is_away();
        for row in self.tunnels.iter().take(ROWS) {
            lines.extend(row.lines(away));
        }
        if self.tunnels.len() > ROWS {
            lines.push(format!("  and {} more", self.tunnels.len() - ROWS));
        }
        if let Some(problem) = &self.problem {
            lines.push(String::new());
            lines.extend(problem.lines(now, width));
        }
        lines.push(String::new());
        lines.push("Ctrl-C ends it.".to_owned());
        lines.into_iter().map(|line| fit(&line, width)).collect()
    }

    fn ending(&mut self, line: String) {
        let away = self.is_away();
        self.link = Link::Ending { line, away };
    }

    fn is_away(&self) -> bool {
        match self.link {
            Link::Starting | Link::Connected(_) => false,
            Link::Connecting(_) | Link::Waiting(_) => true,
            Link::Ending { away, .. } => away,
        }
    }

    fn link_line(&self) -> String {
        match &self.link {
            Link::Starting => "starting".to_owned(),
            Link::Connecting(addresses) => format!("connecting to {addresses}"),
            Link::Connected(peer) => {
                let rtt = self
                    .rtt
                    .map_or_else(String::new, |rtt| format!(", {}", millis(rtt)));
                format!("connected to {peer}{rtt}")
            }
            Link::Waiting(wait) => format!("not connected, next try in {}", seconds(*wait)),
            Link::Ending { line, .. } => line.clone(),
        }
    }
}

impl Tunnel {
    /// `away`: no link carries it now.
    fn lines(&self, away: bool) -> [String; 2] {
        let first = match &self.state {
            State::Live(url) if away => format!("  waiting   {url}"),
            State::Live(url) => format!("  live      {url}"),
            State::Refused => format!("  refused   {}", self.name),
            State::Trouble(text) => format!("  trouble   {}: {text}", self.name),
        };
        let second = format!(
            "            -> {}   {} open, {} so far",
            self.target, self.open, self.ever
        );
        [first, second]
    }
}

impl Problem {
    fn lines(&self, now: Instant, width: usize) -> Vec<String> {
        let code = self
            .code
            .map_or_else(String::new, |code| format!(" ({code})"));
        let age = ago(now.saturating_duration_since(self.since));
        let mut lines = vec![format!("  problem   {age}{code}")];
        for text in std::iter::once(&self.what).chain(&self.remedy) {
            lines.extend(wrapped(text, width.saturating_sub(13)));
        }
        lines
    }
}

fn wrapped(text: &str, width: usize) -> impl Iterator<Item = String> {
    let lines = crate::failure::wrap(text, width.max(20));
    lines.into_iter().map(|line| format!("            {line}"))
}

/// What is wrong behind a tunnel: with the way there, the service, or a stream.
fn behind(tunnel: &TunnelName, code: Code, why: &str) -> String {
    match code {
        Code::TARGET_FORBIDDEN => {
            format!("the tunnel {tunnel} is up, its target is out of bounds: {why}")
        }
        Code::TARGET_REFUSED
        | Code::TARGET_UNREACHABLE
        | Code::TARGET_UNKNOWN
        | Code::TARGET_TLS => {
            format!("the tunnel {tunnel} is up, the service behind it is not: {why}")
        }
        _ => format!("the service behind {tunnel} answers, with trouble: {why}"),
    }
}

fn remedy_of(code: Code) -> Vec<String> {
    advice::remedy(code).into_iter().collect()
}

/// Cuts a line to the width, so that it takes one row.
fn fit(line: &str, width: usize) -> String {
    let plain = terminal::plain(line);
    if plain.chars().count() < width {
        return plain;
    }
    let mut cut: String = plain.chars().take(width.saturating_sub(2)).collect();
    cut.push('…');
    cut
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} s", time.as_secs())
    }
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn ago(time: Duration) -> String {
    match time.as_secs() {
        0..2 => "just now".to_owned(),
        s @ 2..120 => format!("{s} s ago"),
        s @ 120..7200 => format!("{} min ago", s / 60),
        s => format!("{} h ago", s / 3600),
    }
}

#[cfg(test)]
mod tests {
    use adit_agent::RefusalKind;

    use super::*;

    fn name() -> TunnelName {
        TunnelName::parse("app").unwrap()
    }

    fn live(board: &mut Board, now: Instant) -> Told {
        let event = AgentEvent::Live {
            tunnel: name(),
            url: "http://app.localhost:8080".to_owned(),
            target: "http://localhost:3000".to_owned(),
        };
        board.take(event, now)
    }

    #[test]
    fn a_live_tunnel_is_a_line_for_scripts_and_a_row_for_people() {
        let (mut board, now) = (Board::new(), Instant::now());
        let told = live(&mut board, now);
        let line = "live app http://app.localhost:8080 http://localhost:3000";
        assert_eq!(told, Told::Ready(line.to_owned()));
        board.take(AgentEvent::Rtt(Duration::from_micros(400)), now);
        let shown = board.lines(now, 80).join("\n");
        assert_eq!(
            shown,
            "starting\n\n  live      http://app.localhost:8080\n            -> http://localhost:3000   0 open, 0 so far\n\nCtrl-C ends it."
        );
    }

    #[test]
    fn a_tcp_tunnel_is_shown_by_its_public_port() {
        let (mut board, now) = (Board::new(), Instant::now());
        let event = AgentEvent::Live {
            tunnel: TunnelName::parse("ssh").unwrap(),
            url: "tcp://edge.example.test:2222".to_owned(),
            target: "localhost:22".to_owned(),
        };
        let line = "live ssh tcp://edge.example.test:2222 localhost:22";
        assert_eq!(board.take(event, now), Told::Ready(line.to_owned()));
        let shown = board.lines(now, 80).join("\n");
        assert!(
            shown.contains(
                "  live      tcp://edge.example.test:2222\n            -> localhost:22   0 open"
            ),
            "{shown}"
        );
    }

    #[test]
    fn a_target_out_of_bounds_is_not_told_as_a_service_that_is_down() {
        let (mut board, now) = (Board::new(), Instant::now());
        live(&mut board, now);
        let event = AgentEvent::TargetTrouble {
            tunnel: name(),
            code: Code::TARGET_FORBIDDEN,
            why: "nas.lan:22: this agent's allowed_targets hold no 10.0.0.1:22".to_owned(),
        };
        let Told::Problem { what, remedy, .. } = board.take(event, now) else {
            panic!("a problem")
        };
        assert!(what.contains("out of bounds: nas.lan:22"), "{what}");
        assert!(remedy.contains("allowed_targets"), "{remedy}");
    }

    #[test]
    fn a_service_that_is_down_is_told_with_who_must_act() {
        let (mut board, now) = (Board::new(), Instant::now());
        live(&mut board, now);
        let told = board.take(
            AgentEvent::TargetTrouble {
                tunnel: name(),
                code: Code::TARGET_REFUSED,
                why: "nothing listens at localhost:3000".to_owned(),
            },
            now,
        );
        let Told::Problem { code, what, remedy } = told else {
            panic!("a problem")
        };
        assert_eq!(code, Some(Code::TARGET_REFUSED));
        assert!(what.contains("the service behind it is not"), "{what}");
        assert!(remedy.starts_with("start the service"), "{remedy}");
        let shown = board.lines(now + Duration::from_secs(12), 120).join("\n");
        assert!(shown.contains("problem   12 s ago (ADIT-4101)"), "{shown}");
        assert!(
            shown.contains("nothing listens at localhost:3000"),
            "{shown}"
        );
    }

    #[test]
    fn a_service_that_hangs_up_is_not_told_as_down() {
        let (mut board, now) = (Board::new(), Instant::now());
        live(&mut board, now);
        let event = AgentEvent::TargetTrouble {
            tunnel: name(),
            code: Code::TARGET_CLOSED,
            why: "https://nas.lan: it ended the TLS connection".to_owned(),
        };
        let Told::Problem { what, .. } = board.take(event, now) else {
            panic!("a problem")
        };
        assert!(what.starts_with("the service behind app answers"), "{what}");
        assert!(!what.contains("is not"), "{what}");
    }

    #[test]
    fn what_comes_back_with_each_try_is_told_once_and_now_and_then() {
        let (mut board, start) = (Board::new(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let lost = |why: &str| AgentEvent::Lost {
            code: Code::EDGE_UNREACHABLE,
            why: why.to_owned(),
            retry_in: Duration::from_secs(1),
        };
        let refused = || {
            AgentEvent::Refused(Refusal {
                kind: RefusalKind::Silent,
                own_secret: true,
                retry_in: Some(Duration::from_secs(1)),
            })
        };
        let mut tells = |event, now| board.take(event, now) != Told::Nothing;
        assert!(tells(refused(), start));
        assert!(!tells(refused(), after(1)), "the same cause");
        // Another cause is news, and a known one that comes back is not.
        assert!(tells(lost("nobody is there"), after(2)));
        assert!(!tells(refused(), after(3)));
        assert!(!tells(lost("nobody is there"), after(299)));
        assert!(tells(refused(), after(300)));
        assert!(!tells(refused(), after(301)));
        let refused_name = |text: &str| AgentEvent::TunnelRefused {
            tunnel: name(),
            code: 4001,
            text: text.to_owned(),
            retry_in: Duration::from_secs(5),
        };
        assert!(tells(refused_name("taken"), after(302)));
        assert!(!tells(refused_name("taken"), after(307)));
        live(&mut board, after(308));
        let again = board.take(refused_name("taken"), after(309));
        assert_ne!(again, Told::Nothing, "it was live meanwhile");
        // The live view goes on with each try.
        board.take(refused(), after(310));
        let shown = board.lines(after(311), 120).join("\n");
        assert!(shown.contains("next try in 1.0 s"), "{shown}");
        assert!(shown.contains("problem   just now (ADIT-3003)"), "{shown}");
    }

    #[test]
    fn without_a_link_no_tunnel_is_live() {
        let (mut board, now) = (Board::new(), Instant::now());
        live(&mut board, now);
        let lost = AgentEvent::Lost {
            code: Code::EDGE_UNREACHABLE,
            why: "connection refused".to_owned(),
            retry_in: Duration::from_secs(1),
        };
        board.take(lost, now);
        let shown = board.lines(now, 80).join("\n");
        assert!(
            shown.contains("  waiting   http://app.localhost:8080\n"),
            "{shown}"
        );
        assert!(!shown.contains("  live "), "{shown}");
        board.take(AgentEvent::Stopping { streams: 0 }, now);
        assert!(!board.lines(now, 80).join("\n").contains("  live "));
        let connected = AgentEvent::Connected {
            edge: adit_model::PublicKey([1; 32]),
            peer: "127.0.0.1:7400".parse().unwrap(),
            carrier: Carrier::Tcp,
            version: "1".to_owned(),
        };
        board.take(connected, now);
        live(&mut board, now);
        assert!(board.lines(now, 80).join("\n").contains("  live      http"));
    }

    #[test]
    fn an_edge_that_goes_away_is_told_with_its_code() {
        let (mut board, now) = (Board::new(), Instant::now());
        let told = board.take(AgentEvent::Draining { seconds: 30 }, now);
        let Told::News(line) = told else {
            panic!("news")
        };
        assert!(
            line.contains("within 30 s") && line.contains("ADIT-3009"),
            "{line}"
        );
    }

    #[test]
    fn what_strangers_send_cannot_steer_the_terminal() {
        let (mut board, now) = (Board::new(), Instant::now());
        board.take(
            AgentEvent::TunnelTrouble {
                tunnel: name(),
                code: 0,
                text: "\u{1b}[2J".to_owned(),
            },
            now,
        );
        assert!(
            board
                .lines(now, 80)
                .iter()
                .all(|line| !line.contains('\u{1b}'))
        );
    }

    #[test]
    fn lines_fit_the_terminal() {
        assert_eq!(fit("abcdef", 7), "abcdef");
        assert_eq!(fit("abcdef", 6), "abcd…");
        assert_eq!(ago(Duration::from_secs(1)), "just now");
        assert_eq!(ago(Duration::from_secs(200)), "3 min ago");
    }
}
