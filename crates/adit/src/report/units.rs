//! Numbers for people: at most four digits, and a unit.

/// Units of a thousand each.
const STEPS: [&str; 6] = ["", "k", "M", "G", "T", "P"];

/// Bytes, in thousands: `312 B`, `1.2 kB`, `345 MB`.
pub(crate) fn bytes(count: u64) -> String {
    let (value, step) = scaled(count);
    format!("{value} {step}B")
}

/// A number of things: as it is up to five digits, then `123k`, `1.2M`.
pub(crate) fn count(count: u64) -> String {
    if count < 100_000 {
        return count.to_string();
    }
    let (value, step) = scaled(count);
    format!("{value}{step}")
}

/// Things a second.
pub(crate) fn frequency(each_second: f64) -> String {
    if each_second < 0.05 {
        "0".to_owned()
    } else if each_second < 9.95 {
        format!("{each_second:.1}")
    } else {
        count(whole(each_second))
    }
}

/// Bytes a second, in a column whose head says so.
pub(crate) fn flow(each_second: f64) -> String {
    match whole(each_second) {
        0 => "0".to_owned(),
        some => bytes(some),
    }
}

/// A time in the one unit that matters.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// A round-trip time.
pub(crate) fn millis(micros: u64) -> String {
    let millis = micros as f64 / 1000.0;
    match micros {
        0..1000 => format!("{millis:.2} ms"),
        1000..100_000 => format!("{millis:.1} ms"),
        _ => format!("{millis:.0} ms"),
    }
}

/// The value in the unit in which it has three digits at most, and the unit.
fn scaled(count: u64) -> (String, &'static str) {
    let last = STEPS.len() - 1;
    let (mut value, mut step) = (count as f64, 0);
    while value >= 999.5 && step < last {
        value /= 1000.0;
        step += 1;
    }
    let digits = usize::from(step > 0 && value < 99.95);
    (format!("{value:.digits$}"), STEPS[step])
}

/// Rounded; what is below zero or no number is 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from a float stops at the bounds"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_few_digits() {
        let shown = [0, 999, 1000, 1249, 99_949, 99_951, 999_499, 999_500].map(bytes);
        let expected = [
            "0 B", "999 B", "1.0 kB", "1.2 kB", "99.9 kB", "100 kB", "999 kB", "1.0 MB",
        ];
        assert_eq!(shown, expected);
        assert_eq!(bytes(45_123_456_789), "45.1 GB");
        assert_eq!(bytes(u64::MAX), "18447 PB");
    }

    #[test]
    fn counts_are_exact_as_long_as_they_are_short() {
        let shown = [0, 99_999, 100_000, 1_234_567].map(count);
        assert_eq!(shown, ["0", "99999", "100k", "1.2M"]);
    }

    #[test]
    fn rates_have_a_decimal_where_it_says_something() {
        let shown = [0.0, 0.04, 0.5, 9.94, 9.96, 1234.4, f64::NAN, -1.0].map(frequency);
        assert_eq!(shown, ["0", "0", "0.5", "9.9", "10", "1234", "0", "0"]);
        assert_eq!([0.2, 1500.0].map(flow), ["0", "1.5 kB"]);
    }

    #[test]
    fn times_have_one_unit() {
        let shown = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(span);
        let expected = ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"];
        assert_eq!(shown, expected);
        let shown = [1, 412, 1234, 99_999, 123_456].map(millis);
        let expected = ["0.00 ms", "0.41 ms", "1.2 ms", "100.0 ms", "123 ms"];
        assert_eq!(shown, expected);
    }
}
