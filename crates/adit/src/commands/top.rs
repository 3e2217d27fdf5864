//! `adit top`: the status of a running edge over and over, with rates.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_edge::control::client::Client;
use adit_edge::control::{ControlError, Report};
use adit_model::Code;
use tokio::time::{MissedTickBehavior, interval};

use super::place::EdgePlace;
use crate::failure::Failure;
use crate::report::{self, Look, Moment};
use crate::view::FullScreen;
use crate::{Outcome, edge_seam, runtime, terminal};

/// Between two looks at the edge, in seconds.
const INTERVALS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit top
  adit top --config server.toml --interval 5
  adit top --json                  an object a line, to look at later

The busiest tunnel stands first. NEW/S are new requests and streams a second,
IN/S bytes from visitors, OUT/S bytes to them (1 kB = 1000 bytes). An edge that
starts again is shown again. Ctrl-C ends it.")]
pub(crate) struct Args {
    /// Time between two looks at the edge
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    interval: Duration,
    /// Print a JSON object with rates after each interval
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: EdgePlace,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let given = text.parse::<f64>().ok();
    let given = given.filter(|seconds| INTERVALS.contains(seconds));
    let (least, most) = (INTERVALS.start(), INTERVALS.end());
    given
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("a number of seconds from {least} to {most}"))
}

pub(crate) fn run(args: &Args) -> Outcome {
    if !args.json && !terminal::is_person() {
        let what = "adit top draws on a terminal, and stdout is none";
        let remedy = "use adit status --json, or adit top --json for an object each interval";
        return Err(Failure::with(Code::USAGE, what, remedy));
    }
    let desk = Arc::new(args.place.desk(false)?);
    runtime::run(watch(desk, args.interval, args.json))
}

async fn watch(desk: Arc<Client>, every: Duration, json: bool) -> Outcome {
    let stop = runtime::stop_on_signal()?;
    let mut top = Top::default();
    // Before the screen changes: it may be that no edge runs.
    let Some(first) = stop.run_until_cancelled(ask(&desk)).await else {
        return Ok(());
    };
    top.take(first, Instant::now())
        .map_err(edge_seam::refused)?;
    let mut shown = if json {
        Shown::Lines { told: false }
    } else {
        Shown::Screen(FullScreen::enter()?)
    };
    shown.show(&mut top)?;
    let mut looks = interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = shown.disturbed() => {}
            _ = looks.tick() => {
                let Some(answer) = stop.run_until_cancelled(ask(&desk)).await else {
                    return Ok(());
                };
                // What is not known now may be known next time.
                drop(top.take(answer, Instant::now()));
            }
        }
        if !shown.show(&mut top)? {
            return Ok(());
        }
    }
}

/// Asks on a thread of its own: an edge that is stuck must not keep Ctrl-C
/// from ending this.
async fn ask(desk: &Arc<Client>) -> Result<Report, ControlError> {
    let desk = Arc::clone(desk);
    let asked = tokio::task::spawn_blocking(move || desk.report()).await;
    asked.unwrap_or_else(|_| Err(ControlError::BadRequest("it was not asked".to_owned())))
}

/// What is known of the edge.
#[derive(Default)]
struct Top {
    latest: Option<(Moment, Instant)>,
    /// Since when it does not answer, and why.
    silent: Option<(Instant, String)>,
    /// Whether the latest was printed as a line.
    printed: bool,
}

impl Top {
    /// Takes an answer in.
    ///
    /// # Errors
    /// There is none, and was none before.
    fn take(
        &mut self,
        answer: Result<Report, ControlError>,
        now: Instant,
    ) -> Result<(), ControlError> {
        match answer {
            Ok(report) => {
                let before = self.latest.as_ref();
                let before =
                    before.map(|(moment, at)| (&moment.report, now.saturating_duration_since(*at)));
                self.latest = Some((Moment::new(report, before), now));
                self.silent = None;
                self.printed = false;
            }
            Err(error) if self.latest.is_none() => return Err(error),
            Err(error) => {
                self.silent.get_or_insert((now, error.to_string()));
            }
        }
        Ok(())
    }

    fn lines(&self, look: Look, height: usize, now: Instant) -> Vec<String> {
        let notice = self.silent.as_ref().map(|(since, _)| {
            let time = now.saturating_duration_since(*since).as_secs();
            format!("NO ANSWER for {time} s")
        });
        self.latest.as_ref().map_or_else(Vec::new, |(moment, _)| {
            report::top(moment, notice.as_deref(), look, height)
        })
    }

    /// The next line of JSON; there is none before there are rates.
    fn line(&mut self) -> Option<String> {
        let (moment, _) = self.latest.as_ref()?;
        if self.printed || moment.rates.is_none() {
            return None;
        }
        self.printed = true;
        Some(moment.json().to_string())
    }
}

/// Where it is shown.
enum Shown {
    /// One JSON object a line.
    Lines {
        /// A silence was told.
        told: bool,
    },
    /// The terminal.
    Screen(FullScreen),
}

impl Shown {
    /// Shows what is known now; false when nobody reads it any more.
    fn show(&mut self, top: &mut Top) -> Result<bool, Failure> {
        let told = match self {
            Self::Screen(screen) => {
                let look = Look {
                    width: terminal::width(),
                    bold: terminal::out_has_colour(),
                };
                // The last row stays free: a line there would scroll.
                let height = terminal::height().saturating_sub(1);
                screen.draw(&top.lines(look, height, Instant::now()));
                return Ok(true);
            }
            Self::Lines { told } => told,
        };
        if let Some((_, why)) = top.silent.as_ref().filter(|_| !*told) {
            terminal::note(&format!("no answer, asked again each interval: {why}"));
        }
        *told = top.silent.is_some();
        let Some(line) = top.line() else {
            return Ok(true);
        };
        match terminal::print_whole(&format!("{line}\n")) {
            Ok(()) => Ok(true),
            // Who closed the pipe has read enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn disturbed(&mut self) {
        match self {
            Self::Screen(screen) => screen.disturbed().await,
            Self::Lines { .. } => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(started: u64, requests: u64) -> Report {
        let mut report = Report {
            started,
            ..Report::default()
        };
        report.totals.requests = requests;
        report
    }

    fn silence() -> Result<Report, ControlError> {
        Err(ControlError::BadRequest("silent".to_owned()))
    }

    #[test]
    fn an_interval_is_a_number_of_seconds_within_bounds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "NaN", "inf", "1e9", "2s", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_edge_that_never_answered_ends_it() {
        let mut top = Top::default();
        assert!(top.take(silence(), Instant::now()).is_err());
    }

    #[test]
    fn each_line_has_rates_and_stands_once() {
        let (mut top, start) = (Top::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        top.take(Ok(report(1, 10)), start).unwrap();
        assert_eq!(top.line(), None);
        top.take(Ok(report(1, 30)), after(2)).unwrap();
        let line = top.line().unwrap();
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["totals"]["rates"]["requests"], 10.0);
        assert_eq!(top.line(), None);
    }

    #[test]
    fn a_silence_is_shown_until_the_next_answer_and_counts_as_time() {
        let (mut top, start) = (Top::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let look = Look {
            width: 80,
            bold: false,
        };
        top.take(Ok(report(1, 10)), start).unwrap();
        assert!(top.lines(look, 24, start)[0].ends_with("; Ctrl-C ends it"));
        top.take(silence(), after(2)).unwrap();
        top.take(silence(), after(4)).unwrap();
        let shown = top.lines(look, 24, after(6));
        assert!(shown[0].starts_with("NO ANSWER for 4 s; "), "{shown:?}");
        assert_eq!(top.line(), None);
        // It was started anew meanwhile.
        top.take(Ok(report(7, 20)), after(10)).unwrap();
        assert!(top.lines(look, 24, start)[0].ends_with("; Ctrl-C ends it"));
        let (moment, _) = top.latest.as_ref().unwrap();
        let rates = moment.rates.as_ref().unwrap();
        assert!((rates.total.requests - 2.0).abs() < 1e-9);
    }
}
