//! A run of named steps: each is timed, a failing one does not end the run,
//! and the last line is the one total.

use std::time::Instant;

/// What a step counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Totals {
    /// A step that is one check.
    pub(crate) const ONE: Self = Self {
        passed: 1,
        failed: 0,
    };
}

struct Line {
    name: String,
    seconds: f64,
    totals: Totals,
    why: Option<String>,
}

/// The steps so far.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// Runs one step. A step that answers with an error counts as one failure
    /// beside what it has counted itself.
    pub(crate) fn step(&mut self, name: &str, run: impl FnOnce(&mut Totals) -> Result<(), String>) {
        println!("\n=== {name}");
        let begun = Instant::now();
        let mut totals = Totals::default();
        let why = run(&mut totals).err();
        if let Some(why) = &why {
            println!("{why}");
            totals.failed = totals.failed.max(1);
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!("--- {name}: {}, {seconds:.1} s", verdict(totals));
        self.lines.push(Line {
            name: name.to_owned(),
            seconds,
            totals,
            why,
        });
    }

    /// A step that is one check.
    pub(crate) fn check(&mut self, name: &str, run: impl FnOnce() -> Result<(), String>) {
        self.step(name, |totals| {
            run()?;
            *totals = Totals::ONE;
            Ok(())
        });
    }

    /// The sum of all steps.
    pub(crate) fn totals(&self) -> Totals {
        self.lines
            .iter()
            .fold(Totals::default(), |sum, line| Totals {
                passed: sum.passed + line.totals.passed,
                failed: sum.failed + line.totals.failed,
            })
    }

    /// Prints every step, every failure and, last, the total; answers whether
    /// all passed.
    pub(crate) fn close(&self) -> bool {
        println!("\n=== what was run");
        for line in &self.lines {
            let verdict = verdict(line.totals);
            println!("{:>7.1} s  {:<40} {verdict}", line.seconds, line.name);
        }
        for line in self.lines.iter().filter(|line| line.totals.failed > 0) {
            let why = line.why.as_deref().unwrap_or("see above");
            println!("\nfailed: {}: {why}", line.name);
        }
        let Totals { passed, failed } = self.totals();
        println!("\n{passed} passed, {failed} failed");
        failed == 0 && passed > 0
    }
}

fn verdict(totals: Totals) -> String {
    match totals {
        Totals::ONE => "passed".into(),
        Totals {
            passed: 0,
            failed: 1,
        } => "FAILED".into(),
        Totals { passed, failed } => format!("{passed} passed, {failed} failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_step_does_not_end_the_run_and_is_counted_once() {
        let mut report = Report::default();
        report.check("good", || Ok(()));
        report.check("bad", || Err("because".into()));
        report.step("many", |totals| {
            *totals = Totals {
                passed: 7,
                failed: 2,
            };
            Err("two tests failed".into())
        });
        let sum = Totals {
            passed: 8,
            failed: 3,
        };
        assert_eq!(report.totals(), sum);
        assert!(!report.close());
    }

    #[test]
    fn a_run_of_nothing_is_no_success() {
        assert!(!Report::default().close());
    }
}
