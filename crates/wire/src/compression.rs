//! Which streams may carry compressed frames.

use std::fmt;
use std::str::FromStr;

/// Whether the data frames of a tunnel may be compressed. Both sides keep to
/// it, each for the bytes that it sends; a compressed frame on a tunnel with
/// [`Compression::Off`] ends its channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// No frame is.
    #[default]
    Off,
    /// Where it is likely to pay; given up for a while where it did not.
    Auto,
    /// Each frame is tried.
    Always,
}

impl Compression {
    /// Its number on the wire; [`Compression::Off`] has none, a message that
    /// says nothing means it.
    #[must_use]
    pub fn number(self) -> Option<u8> {
        match self {
            Self::Off => None,
            Self::Auto => Some(1),
            Self::Always => Some(2),
        }
    }

    /// The one of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Auto),
            2 => Some(Self::Always),
            _ => None,
        }
    }

    /// The word for it that people write.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Auto => "auto",
            Self::Always => "always",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The text is none of the three words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("compression is off, auto or always")]
pub struct NoCompression;

impl FromStr for Compression {
    type Err = NoCompression;

    fn from_str(text: &str) -> Result<Self, NoCompression> {
        let all = [Self::Off, Self::Auto, Self::Always];
        let found = all.into_iter().find(|one| one.word() == text);
        found.ok_or(NoCompression)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_are_read_as_they_are_written() {
        for one in [Compression::Off, Compression::Auto, Compression::Always] {
            assert_eq!(one.to_string().parse(), Ok(one));
            let number = one.number();
            assert_eq!(
                number
                    .and_then(Compression::from_number)
                    .unwrap_or_default(),
                one
            );
        }
        assert_eq!(Compression::from_number(0), None);
        assert_eq!("on".parse::<Compression>(), Err(NoCompression));
    }
}
