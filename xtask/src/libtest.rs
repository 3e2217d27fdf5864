//! Reading the totals that Rust's test harness prints.

use crate::steps::Totals;

/// The totals of every `test result:` line seen so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) totals: Totals,
    pub(crate) ignored: u64,
}

impl Seen {
    /// Takes one line of output; lines that are no result are passed over.
    pub(crate) fn line(&mut self, line: &str) {
        let Some(rest) = line.trim().strip_prefix("test result: ") else {
            return;
        };
        let counts = rest.split_once(". ").map_or(rest, |(_, counts)| counts);
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let number = words.next().and_then(|n| n.parse::<u64>().ok());
            match (number, words.next()) {
                (Some(n), Some("passed")) => self.totals.passed += n,
                (Some(n), Some("failed")) => self.totals.failed += n,
                (Some(n), Some("ignored")) => self.ignored += n,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed_and_other_lines_are_not() {
        let mut seen = Seen::default();
        for line in [
            "running 12 tests",
            "test a::b ... ok",
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s",
            "test result: FAILED. 4 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1s",
            "the test result: ok. 9 passed",
        ] {
            seen.line(line);
        }
        let totals = Totals {
            passed: 16,
            failed: 2,
        };
        assert_eq!(seen, Seen { totals, ignored: 1 });
    }
}
