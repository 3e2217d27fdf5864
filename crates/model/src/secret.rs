//! Secrets that cannot be printed and are wiped when dropped.

use std::fmt;

use zeroize::Zeroizing;

/// Why a configured secret was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Below 32 characters.
    #[error("secret has fewer than 32 characters")]
    TooShort,
    /// Above 1024 bytes.
    #[error("secret has more than 1024 bytes")]
    TooLong,
    /// Too few different characters or too regular to hold 128 bits.
    #[error("secret looks made by a person, so that it could be guessed offline")]
    HumanMade,
    /// A line break, or another character that a file or a terminal would eat.
    #[error("secret holds a line break or another control character")]
    ControlCharacter,
    /// A PIN is 6 characters of its alphabet.
    #[error("a PIN has 6 characters, letters and digits without 0, O, 1, I and L")]
    NotAPin,
}

/// A pre-shared secret: the edge's shared secret, a join token, or the secret
/// that an edge handed to one agent. Its bytes are the UTF-8 of its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Psk(Zeroizing<Box<str>>);

/// Fewest characters of a configured secret.
const MIN_CHARS: usize = 32;
/// The estimate reads low on short texts: 32 random hexadecimal digits, which
/// hold 128 bits, come out between 100 and 125.
const MIN_ESTIMATE: f64 = 96.0;
/// Most bytes of it.
const MAX_BYTES: usize = 1024;

impl Psk {
    /// Takes a configured secret; one trailing newline (of a file) is removed.
    ///
    /// # Errors
    /// A listener can try the first message's MAC offline, so a secret must
    /// hold at least 128 bits; what cannot is refused (see [`SecretError`]).
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.chars().count() < MIN_CHARS {
            return Err(SecretError::TooShort);
        }
        if text.chars().any(char::is_control) {
            return Err(SecretError::ControlCharacter);
        }
        if text.len() > MAX_BYTES {
            return Err(SecretError::TooLong);
        }
        if estimated_bits(text) < MIN_ESTIMATE {
            return Err(SecretError::HumanMade);
        }
        Ok(Self(Zeroizing::new(text.into())))
    }

    /// A secret of 32 random bytes, as 52 characters.
    #[must_use]
    pub fn from_random(bytes: [u8; 32]) -> Self {
        let text = data_encoding::BASE32_NOPAD
            .encode(&bytes)
            .to_ascii_lowercase();
        Self(Zeroizing::new(text.into()))
    }

    /// The secret's bytes, for key derivation.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The secret's text, to be written to a file of mode 0600 or into a join
    /// string. Every use of this is a place where a secret leaves the process.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(hidden)")
    }
}

/// Shannon entropy over single characters and over neighbouring steps, the
/// lower of both times the length: words, repeats and runs fall below 128.
fn estimated_bits(text: &str) -> f64 {
    let chars: Vec<u32> = text.chars().map(u32::from).collect();
    let steps: Vec<u32> = chars.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
    let worded = text
        .split([' ', '-', '_', '.'])
        .filter(|w| w.len() > 2)
        .count();
    let letters_only = text
        .chars()
        .all(|c| c.is_alphabetic() || " -_.".contains(c));
    let bits = entropy(&chars).min(entropy(&steps)) * chars.len() as f64;
    if letters_only && worded > 2 {
        bits.min(11.0 * worded as f64)
    } else {
        bits
    }
}

fn entropy(symbols: &[u32]) -> f64 {
    let mut counts = std::collections::HashMap::new();
    for symbol in symbols {
        *counts.entry(symbol).or_insert(0u32) += 1;
    }
    let total = symbols.len() as f64;
    counts
        .values()
        .map(|&n| f64::from(n) / total)
        .map(|p| -p * p.log2())
        .sum()
}

/// Characters of a PIN: none that is read as another.
const PIN_ALPHABET: &[u8; 31] = b"23456789ABCDEFGHJKMNPQRSTUVWXYZ";

/// The six characters that the edge shows on its console.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin(Zeroizing<[u8; 6]>);

impl Pin {
    /// Makes a PIN from uniformly random words.
    #[must_use]
    pub fn from_random(words: [u32; 6]) -> Self {
        Self(Zeroizing::new(
            words.map(|w| PIN_ALPHABET[w as usize % PIN_ALPHABET.len()]),
        ))
    }

    /// Parses what a person typed: spaces and hyphens are skipped, lower case
    /// is folded.
    ///
    /// # Errors
    /// [`SecretError::NotAPin`].
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let mut chars = Zeroizing::new([0u8; 6]);
        let mut count = 0;
        for byte in text
            .bytes()
            .filter(|b| !b.is_ascii_whitespace() && *b != b'-')
        {
            let upper = byte.to_ascii_uppercase();
            if count == 6 || !PIN_ALPHABET.contains(&upper) {
                return Err(SecretError::NotAPin);
            }
            chars[count] = upper;
            count += 1;
        }
        if count == 6 {
            Ok(Self(chars))
        } else {
            Err(SecretError::NotAPin)
        }
    }

    /// The PIN's bytes, for its proof.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// The PIN's text, for the edge's console only.
    #[must_use]
    pub fn expose(&self) -> String {
        String::from_utf8_lossy(self.0.as_slice()).into_owned()
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_a_person_made_are_refused() {
        let made = [
            "correct horse battery staple again and again",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "abcdefghijklmnopqrstuvwxyzabcdefghijklmnop",
            "0123456789012345678901234567890123456789",
            "passwordpasswordpasswordpassword",
        ];
        for text in made {
            assert_eq!(Psk::parse(text), Err(SecretError::HumanMade), "{text}");
        }
        assert_eq!(Psk::parse("short"), Err(SecretError::TooShort));
        // Two line breaks: one would be left, and lost when it is read again.
        assert_eq!(
            Psk::parse("0123456789abcdefghijklmnopqrstuv\n\n"),
            Err(SecretError::ControlCharacter)
        );
    }

    #[test]
    fn made_secrets_pass_their_own_check_and_hide() {
        for seed in 0..200u32 {
            let mut bytes = [0u8; 32];
            let mut state = u64::from(seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            for b in &mut bytes {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *b = (state >> 32) as u8;
            }
            let psk = Psk::from_random(bytes);
            assert!(Psk::parse(&format!("{}\n", psk.expose())).is_ok());
            assert_eq!(format!("{psk:?}"), "Psk(hidden)");
            let hex = data_encoding::HEXLOWER.encode(&bytes);
            assert!(Psk::parse(&hex[..32]).is_ok(), "{hex}");
        }
    }

    #[test]
    fn pins_are_read_as_people_type_them() {
        let pin = Pin::from_random([0, 1, 2, 30, 31, 62]);
        assert_eq!(pin.expose(), "234Z22");
        assert_eq!(Pin::parse("234-z22").unwrap(), pin);
        assert_eq!(Pin::parse(" 234 Z22 ").unwrap(), pin);
        for bad in ["", "234Z2", "234Z222", "234Z2O", "234Z21"] {
            assert_eq!(Pin::parse(bad), Err(SecretError::NotAPin));
        }
    }
}
