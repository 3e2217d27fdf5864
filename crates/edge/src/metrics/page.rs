//! The Prometheus text format, version 0.0.4.

use std::fmt::Write;

use super::kinds::{Counter, Family, Gauge, Histogram, Label};

/// A page under construction. Each family is written once, its samples right
/// behind its `HELP` and `TYPE`.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    pub(super) fn finish(self) -> String {
        self.0
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        self.head(name, help, "counter");
        self.sample(name, "", counter.get());
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, gauge: &Gauge) {
        self.head(name, help, "gauge");
        self.sample(name, "", gauge.get());
    }

    pub(super) fn family<L: Label>(&mut self, name: &str, help: &str, family: &Family<L>) {
        self.head(name, help, "counter");
        self.members::<L>(name, |value| family.of(value).get());
    }

    pub(super) fn gauges<L: Label>(&mut self, name: &str, help: &str, family: &Family<L, Gauge>) {
        self.head(name, help, "gauge");
        self.members::<L>(name, |value| family.of(value).get());
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let mut count = 0;
        for (bound, sum) in histogram.cumulated() {
            match bound {
                Some(bound) => self.line(format_args!("{name}_bucket{{le=\"{bound}\"}} {sum}")),
                None => self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {sum}")),
            }
            count = sum;
        }
        self.line(format_args!("{name}_sum {}", histogram.seconds()));
        self.line(format_args!("{name}_count {count}"));
    }

    /// A family of one sample that is no counter of ours.
    pub(super) fn one(
        &mut self,
        name: &str,
        help: &str,
        kind: &str,
        labels: &str,
        value: impl std::fmt::Display,
    ) {
        self.head(name, help, kind);
        self.sample(name, labels, value);
    }

    /// A family whose labels are known when the page is written.
    pub(super) fn rows<V: std::fmt::Display>(
        &mut self,
        (name, help, kind): (&str, &str, &str),
        rows: impl IntoIterator<Item = (String, V)>,
    ) {
        self.head(name, help, kind);
        for (labels, value) in rows {
            self.sample(name, &labels, value);
        }
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn members<L: Label>(&mut self, name: &str, value_of: impl Fn(L) -> u64) {
        for &value in L::ALL {
            let (label, text) = (L::NAME, value.text());
            let sample = value_of(value);
            self.line(format_args!("{name}{{{label}=\"{text}\"}} {sample}"));
        }
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        self.line(format_args!("{name}{labels} {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.0.write_fmt(line);
        self.0.push('\n');
    }
}
