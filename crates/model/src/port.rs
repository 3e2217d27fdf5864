//! Ranges of ports, as an edge's owner gives them to tunnels.

use std::fmt;
use std::num::NonZeroU16;

/// Why a list of port ranges was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortRangesError {
    /// A part is neither a port nor `from-to`.
    #[error("`{0}` is not a port or a range like 2000-2999")]
    NotARange(String),
    /// A range ends before it begins.
    #[error("the range `{0}` ends before it begins")]
    Backwards(String),
}

/// Ports from 1 to 65535 in ranges: sorted, apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortRanges(Vec<(u16, u16)>);

impl PortRanges {
    /// Parses ports and ranges, separated by commas: `2000-2999, 5432`. An
    /// empty text holds no port.
    ///
    /// # Errors
    /// See [`PortRangesError`].
    pub fn parse(text: &str) -> Result<Self, PortRangesError> {
        let parts = text.split(',').map(str::trim);
        let parts: Vec<&str> = match text.trim() {
            "" => Vec::new(),
            _ => parts.collect(),
        };
        let mut ranges = parts
            .into_iter()
            .map(range)
            .collect::<Result<Vec<_>, _>>()?;
        ranges.sort_unstable();
        let mut apart: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (from, to) in ranges {
            match apart.last_mut() {
                Some((_, end)) if from <= end.saturating_add(1) => *end = to.max(*end),
                _ => apart.push((from, to)),
            }
        }
        Ok(Self(apart))
    }

    /// Whether it holds no port.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ports it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|&range| size(range)).sum()
    }

    /// Whether it holds `port`.
    #[must_use]
    pub fn contains(&self, port: NonZeroU16) -> bool {
        let port = port.get();
        self.0
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&port))
    }

    /// Whether a port is in both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let both = |a: &(u16, u16), b: &(u16, u16)| a.0 <= b.1 && b.0 <= a.1;
        self.0.iter().any(|a| other.0.iter().any(|b| both(a, b)))
    }

    /// The `index`th port, counted from 0 and from below.
    #[must_use]
    pub fn nth(&self, mut index: usize) -> Option<NonZeroU16> {
        for &(from, to) in &self.0 {
            let size = size((from, to));
            if index < size {
                let offset = u16::try_from(index).ok()?;
                return NonZeroU16::new(from.checked_add(offset)?);
            }
            index -= size;
        }
        None
    }
}

fn size((from, to): (u16, u16)) -> usize {
    usize::from(to - from) + 1
}

fn range(part: &str) -> Result<(u16, u16), PortRangesError> {
    let bad = || PortRangesError::NotARange(part.to_owned());
    let port = |text: &str| {
        let text = text.trim();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let port = text.parse::<NonZeroU16>().ok().filter(|_| digits);
        port.map(NonZeroU16::get).ok_or_else(bad)
    };
    let Some((from, to)) = part.split_once('-') else {
        return port(part).map(|port| (port, port));
    };
    let (from, to) = (port(from)?, port(to)?);
    if from > to {
        return Err(PortRangesError::Backwards(part.to_owned()));
    }
    Ok((from, to))
}

impl fmt::Display for PortRanges {
    /// As [`PortRanges::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (from, to)) in self.0.iter().enumerate() {
            f.write_str(if index > 0 { ", " } else { "" })?;
            if from == to {
                write!(f, "{from}")?;
            } else {
                write!(f, "{from}-{to}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> PortRanges {
        PortRanges::parse(text).unwrap()
    }

    #[test]
    fn ranges_are_sorted_and_joined() {
        assert_eq!(parse("").to_string(), "");
        assert_eq!(parse(" 22 ").to_string(), "22");
        assert_eq!(
            parse("3000, 2000-2002,2001 - 2004, 2005").to_string(),
            "2000-2005, 3000"
        );
        assert_eq!(parse("1-65535,7").len(), 65_535);
        assert_eq!(parse("65535, 65534").to_string(), "65534-65535");
    }

    #[test]
    fn every_port_has_its_index() {
        let ranges = parse("10-12,20");
        let all: Vec<u16> = (0..5)
            .filter_map(|n| ranges.nth(n))
            .map(NonZeroU16::get)
            .collect();
        assert_eq!(all, [10, 11, 12, 20]);
        for port in 1..30 {
            let held = ranges.contains(NonZeroU16::new(port).unwrap());
            assert_eq!(held, all.contains(&port), "{port}");
        }
    }

    #[test]
    fn ranges_meet_where_they_share_a_port() {
        let meet = |a, b| parse(a).meets(&parse(b));
        assert!(meet("10-12,20", "1-5,12") && meet("1-65535", "7"));
        assert!(!meet("10-12", "1-9,13-20") && !meet("", "1"));
    }

    #[test]
    fn what_is_no_range_is_told() {
        for text in ["0", "a", "1-", "-1", "65536", "+5", "1,,2", "1 2"] {
            let refused = PortRanges::parse(text).unwrap_err();
            assert!(matches!(refused, PortRangesError::NotARange(_)), "{text}");
        }
        let refused = PortRanges::parse("9-8").unwrap_err();
        assert_eq!(refused, PortRangesError::Backwards("9-8".into()));
    }
}
