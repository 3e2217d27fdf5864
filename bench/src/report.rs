//! From figures to the table.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::command::{Load, Name};
use crate::far::LINE;
use crate::idle::Held;

/// One load on one subject in one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) answers: u64,
    pub(crate) errors: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) resident: u64,
}

impl Figure {
    fn rate(&self) -> f64 {
        self.answers as f64 / self.seconds
    }

    fn speed(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e9
    }

    fn megabits(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds / 1e6
    }

    fn cpu_an_answer(&self) -> f64 {
        self.cpu * 1e6 / self.answers as f64
    }

    fn cpu_a_gigabyte(&self) -> f64 {
        self.cpu * 1e9 / self.bytes as f64
    }
}

/// All of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) figures: BTreeMap<(Load, Name), Vec<Figure>>,
    pub(crate) missing: Vec<(Name, String)>,
    pub(crate) idle: Vec<Held>,
    pub(crate) rounds: usize,
    pub(crate) length: Duration,
}

impl Report {
    fn median(&self, load: Load, name: Name, of: impl Fn(&Figure) -> f64) -> Option<f64> {
        let mut values: Vec<f64> = self.figures.get(&(load, name))?.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = values.get(middle).copied()?;
        if values.len() % 2 == 1 {
            return Some(upper);
        }
        values
            .get(middle.checked_sub(1)?)
            .map(|lower| f64::midpoint(*lower, upper))
    }

    /// The median of each round's own ratio: what else the machine did falls
    /// on both sides of it.
    fn ratio(&self, load: Load, name: Name, of: impl Fn(&Figure) -> f64) -> Option<f64> {
        let own = self.figures.get(&(load, name))?;
        let peer = self.figures.get(&(load, Name::Rathole))?;
        let mut ratios: Vec<f64> = own.iter().zip(peer).map(|(a, b)| of(a) / of(b)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied()
    }

    fn section(&self, f: &mut fmt::Formatter<'_>, load: Load) -> fmt::Result {
        let bulk = matches!(
            load,
            Load::Bulk1 | Load::Bulk8 | Load::Text1 | Load::UdpBulk
        );
        if matches!(load, Load::Stream | Load::Beside) {
            return self.far_section(f, load);
        }
        writeln!(f, "\n### {}\n", title(load))?;
        if bulk {
            writeln!(
                f,
                "| | GB/s | of rathole plain | CPU s/GB | memory MB |\n|---|---|---|---|---|"
            )?;
        } else {
            writeln!(
                f,
                "| | answers/s | of rathole plain | CPU µs an answer | p50 ms | p99 ms | memory MB |\n|---|---|---|---|---|---|---|"
            )?;
        }
        for (at, name) in self.figures.keys() {
            if *at == load {
                self.row(f, load, *name, bulk)?;
            }
        }
        Ok(())
    }

    fn far_section(&self, f: &mut fmt::Formatter<'_>, load: Load) -> fmt::Result {
        writeln!(
            f,
            "\n### {}\n\n| | Mbit/s | share of the line | of rathole plain | small: p50 ms | p99 ms |\n|---|---|---|---|---|---|",
            title(load)
        )?;
        let rows = self.figures.keys().filter(|(at, _)| *at == load);
        for (_, name) in rows {
            let median = |of: fn(&Figure) -> f64| self.median(load, *name, of).unwrap_or(f64::NAN);
            let errors = self.figures.get(&(load, *name)).into_iter().flatten();
            let errors: u64 = errors.map(|figure| figure.errors).sum();
            let title = match errors {
                0 => name.title().to_owned(),
                _ => format!("{} ({errors} errors)", name.title()),
            };
            let number = |value: f64, digits: usize| match value.is_nan() {
                true => "–".to_owned(),
                false => format!("{value:.digits$}"),
            };
            writeln!(
                f,
                "| {title} | {:.1} | {:.0} % | {} | {} | {} |",
                median(Figure::megabits),
                median(Figure::megabits) * 100.0 / LINE,
                number(
                    self.ratio(load, *name, Figure::megabits)
                        .unwrap_or(f64::NAN),
                    2
                ),
                number(median(|x| x.p50), 0),
                number(median(|x| x.p99), 0),
            )?;
        }
        Ok(())
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, load: Load, name: Name, bulk: bool) -> fmt::Result {
        let median = |of: fn(&Figure) -> f64| self.median(load, name, of).unwrap_or(f64::NAN);
        let measure = if bulk { Figure::speed } else { Figure::rate };
        let ratio = match self.ratio(load, name, measure) {
            Some(ratio) => format!("{ratio:.2}"),
            None => "–".into(),
        };
        let direct = name == Name::Direct;
        let own = |text: String| if direct { "–".to_owned() } else { text };
        let memory = own(format!("{:.1}", median(|x| x.resident as f64) / 1e6));
        let errors: u64 = self
            .figures
            .get(&(load, name))
            .map_or(0, |all| all.iter().map(|x| x.errors).sum());
        let title = if errors == 0 {
            name.title().to_owned()
        } else {
            format!("{} ({errors} errors)", name.title())
        };
        if bulk {
            let cpu = own(format!("{:.2}", median(Figure::cpu_a_gigabyte)));
            writeln!(
                f,
                "| {title} | {:.2} | {ratio} | {cpu} | {memory} |",
                median(Figure::speed)
            )
        } else {
            let cpu = own(format!("{:.1}", median(Figure::cpu_an_answer)));
            writeln!(
                f,
                "| {title} | {:.0} | {ratio} | {cpu} | {:.2} | {:.2} | {memory} |",
                median(Figure::rate),
                median(|x| x.p50),
                median(|x| x.p99),
            )
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Median of {} alternating rounds of {:.0} s; ratios are medians of the rounds' own ratios.",
            self.rounds,
            self.length.as_secs_f64()
        )?;
        let mut loads: Vec<Load> = self.figures.keys().map(|(load, _)| *load).collect();
        loads.dedup();
        for load in loads {
            self.section(f, load)?;
        }
        if !self.idle.is_empty() {
            writeln!(
                f,
                "\n### Idle links on the edge, one tunnel each, agents in another process\n"
            )?;
            writeln!(
                f,
                "| links | edge memory MB | KiB a link | descriptors | CPU ms a second | links/s while joining |\n|---|---|---|---|---|---|"
            )?;
            for held in &self.idle {
                writeln!(f, "{held}")?;
            }
        }
        for (name, why) in &self.missing {
            writeln!(f, "\nNot measured: {}: {why}", name.title())?;
        }
        Ok(())
    }
}

fn title(load: Load) -> &'static str {
    match load {
        Load::Keepalive => "HTTP keep-alive, 64 connections, 1 KiB",
        Load::New => "New connection for each request, 64 at a time, 1 KiB",
        Load::Udp => "UDP, 64 visitors, questions of 64 bytes",
        Load::UdpBulk => "UDP, 8 visitors, 8 datagrams of 1 KiB on their way each",
        Load::Bulk1 => "Bulk download, 1 stream",
        Load::Bulk8 => "Bulk download, 8 streams",
        Load::Text1 => "Bulk download of text, 1 stream",
        Load::Conns16 => "Growth: HTTP keep-alive, 16 connections (1×)",
        Load::Conns160 => "Growth: HTTP keep-alive, 160 connections (10×)",
        Load::Conns1600 => "Growth: HTTP keep-alive, 1,600 connections (100×)",
        Load::Idle => "Idle links",
        Load::Stream => "One stream",
        Load::Beside => "One stream, and 8 visitors asking for 1 KiB beside it",
    }
}
