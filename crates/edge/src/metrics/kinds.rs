//! Counters, gauges, histograms and families of counters: plain atomics.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows. On a cache line of its own, so that cores that
/// count different things do not slow each other.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Follows a sum that something else counts; never goes back.
    pub fn follow(&self, sum: u64) {
        self.0.fetch_max(sum, Ordering::Relaxed);
    }

    /// The sum so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more.
    pub fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less; at zero it stays.
    pub fn down(&self) {
        let less = |n: u64| n.checked_sub(1);
        // At zero nothing is to be done.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// One more until the guard is dropped.
    #[must_use]
    pub fn hold(&self) -> Held<'_> {
        self.up();
        Held(self)
    }

    /// Exactly `n`.
    pub fn set(&self, n: usize) {
        self.0
            .store(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keeps a gauge one higher while it lives.
#[derive(Debug)]
pub struct Held<'g>(&'g Gauge);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.down();
    }
}

/// The values of one label, known when the program is built: nothing that a
/// stranger sends can make a new series.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values, in the order of their indices.
    const ALL: &'static [Self];
    /// The value's place in [`Label::ALL`].
    fn index(self) -> usize;
    /// The value as text.
    fn text(self) -> &'static str;
}

/// Declares a label: `labels!(Door "door": Http = "http", ...)`.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident $label:literal : $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $crate::metrics::kinds::Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn index(self) -> usize {
                self as usize
            }
            fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}
pub(crate) use labels;

/// One `T` for each value of a label.
#[derive(Debug)]
pub struct Family<L, T = Counter> {
    members: Box<[T]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, T: Default> Default for Family<L, T> {
    fn default() -> Self {
        Self {
            members: L::ALL.iter().map(|_| T::default()).collect(),
            label: PhantomData,
        }
    }
}

impl<L: Label, T> Family<L, T> {
    /// The member of a value.
    #[must_use]
    pub fn of(&self, value: L) -> &T {
        &self.members[value.index()]
    }
}

impl<L: Label> Family<L> {
    /// The sum of all members.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.members.iter().map(Counter::get).sum()
    }

    /// Value of the label -> sum.
    pub(super) fn to_json(&self) -> serde_json::Value {
        let mut all = serde_json::Map::new();
        for &value in L::ALL {
            all.insert(value.text().to_owned(), self.of(value).get().into());
        }
        all.into()
    }
}

/// Upper bounds of the buckets, in microseconds.
const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000, 60_000_000,
];

/// Durations in buckets from half a millisecond to a minute.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|&bound| bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Durations counted so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        let load = |bucket: &AtomicU64| bucket.load(Ordering::Relaxed);
        self.buckets.iter().map(load).sum()
    }

    /// Upper bound in seconds (`None` = no bound) and how many lie below it.
    pub(super) fn cumulated(&self) -> impl Iterator<Item = (Option<f64>, u64)> + '_ {
        let bounds = BOUNDS.iter().map(|&b| Some(b as f64 / 1e6)).chain([None]);
        let mut sum = 0;
        bounds.zip(&self.buckets).map(move |(bound, bucket)| {
            sum += bucket.load(Ordering::Relaxed);
            (bound, sum)
        })
    }

    /// Sum of all durations in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.micros.load(Ordering::Relaxed) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_never_goes_below_zero() {
        let gauge = Gauge::default();
        gauge.down();
        assert_eq!(gauge.get(), 0);
        {
            let _held = gauge.hold();
            assert_eq!(gauge.get(), 1);
        }
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_pass() {
        let histogram = Histogram::default();
        for micros in [0, 500, 501, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let sums: Vec<_> = histogram.cumulated().collect();
        assert_eq!(sums[0], (Some(0.0005), 2));
        assert_eq!(sums[1], (Some(0.001), 3));
        assert_eq!(sums[13], (Some(60.0), 4));
        assert_eq!(sums[14], (None, 5));
        assert_eq!(histogram.count(), 5);
    }
}
