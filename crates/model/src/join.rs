//! The join string: everything an agent needs to reach one edge, in one word.
//!
//! `adit1` followed by base32 (lower case, no padding) of
//! `version 1 | fields | first 4 bytes of SHA-256 over version and fields`;
//! a field is `tag u8 | length u16 BE | bytes`, unknown tags are skipped.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};

use crate::{CarrierDoor, Psk, PublicKey};

/// Why a join string was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Does not begin with `adit1`.
    #[error("a join string begins with adit1")]
    NotAJoinString,
    /// The checksum does not fit: a character is missing or changed.
    #[error("join string is damaged: copy it again, as one word")]
    Damaged,
    /// Made by a later version than this one understands.
    #[error("join string was made by a newer version: update this program")]
    Newer,
    /// A field that every join string has is absent or malformed.
    #[error("join string is incomplete")]
    Incomplete,
}

/// What proves the right to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The edge's shared secret.
    Shared(Psk),
    /// A one-time join token.
    Token(Psk),
}

impl Credential {
    /// The pre-shared secret of either kind.
    #[must_use]
    pub fn psk(&self) -> &Psk {
        match self {
            Self::Shared(psk) | Self::Token(psk) => psk,
        }
    }
}

/// A parsed join string. Its `Debug` hides the credential; its text comes from
/// [`JoinString::expose`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinString {
    /// `host:port` of the edge's link doors, the first tried first.
    pub addresses: Vec<String>,
    /// Doors for other carriers on those hosts.
    pub doors: Vec<CarrierDoor>,
    /// The key that the edge must prove.
    pub edge: PublicKey,
    /// What admits the agent.
    pub credential: Credential,
}

const PREFIX: &str = "adit1";
const VERSION: u8 = 1;
const TAG_ADDRESS: u8 = 1;
const TAG_EDGE: u8 = 2;
const TAG_SHARED: u8 = 3;
const TAG_TOKEN: u8 = 4;
const TAG_DOOR: u8 = 5;
/// Longest text that is looked at.
const MAX_TEXT: usize = 4096;

impl JoinString {
    /// The text form, which holds the secret.
    #[must_use]
    pub fn expose(&self) -> String {
        let mut bytes = vec![VERSION];
        for address in &self.addresses {
            put(&mut bytes, TAG_ADDRESS, address.as_bytes());
        }
        put(&mut bytes, TAG_EDGE, &self.edge.0);
        match &self.credential {
            Credential::Shared(psk) => put(&mut bytes, TAG_SHARED, psk.bytes()),
            Credential::Token(psk) => put(&mut bytes, TAG_TOKEN, psk.bytes()),
        }
        for door in &self.doors {
            put(&mut bytes, TAG_DOOR, &door.to_bytes());
        }
        let sum = digest(&SHA256, &bytes);
        bytes.extend_from_slice(&sum.as_ref()[..4]);
        let text = data_encoding::BASE32_NOPAD.encode(&bytes);
        format!("{PREFIX}{}", text.to_ascii_lowercase())
    }
}

fn put(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.push(tag);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&value[..usize::from(length)]);
}

impl FromStr for JoinString {
    type Err = JoinError;

    fn from_str(text: &str) -> Result<Self, JoinError> {
        let text: String = text.split_whitespace().collect();
        let lower = text.to_ascii_lowercase();
        let Some(encoded) = lower.strip_prefix(PREFIX) else {
            let version = lower.strip_prefix("adit").and_then(|v| v.chars().next());
            return Err(match version {
                Some('2'..='9') => JoinError::Newer,
                _ => JoinError::NotAJoinString,
            });
        };
        if encoded.len() > MAX_TEXT {
            return Err(JoinError::Damaged);
        }
        let bytes = data_encoding::BASE32_NOPAD
            .decode(encoded.to_ascii_uppercase().as_bytes())
            .map_err(|_| JoinError::Damaged)?;
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or(JoinError::Damaged)?;
        if digest(&SHA256, body).as_ref()[..4] != sum[..] {
            return Err(JoinError::Damaged);
        }
        let (&version, fields) = body.split_first().ok_or(JoinError::Damaged)?;
        if version != VERSION {
            return Err(JoinError::Newer);
        }
        parse_fields(fields)
    }
}

fn parse_fields(mut rest: &[u8]) -> Result<JoinString, JoinError> {
    let (mut addresses, mut edge, mut credential) = (Vec::new(), None, None);
    let mut doors = Vec::new();
    while let Some(([tag, hi, lo], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*hi, *lo]));
        let (value, after) = after
            .split_at_checked(length)
            .ok_or(JoinError::Incomplete)?;
        rest = after;
        match *tag {
            TAG_ADDRESS => addresses.push(text_of(value)?.to_owned()),
            TAG_EDGE => {
                edge = Some(PublicKey(
                    value.try_into().map_err(|_| JoinError::Incomplete)?,
                ));
            }
            TAG_SHARED => credential = Some(Credential::Shared(psk_of(value)?)),
            TAG_DOOR => {
                let door = value.try_into().map_err(|_| JoinError::Incomplete)?;
                doors.extend(CarrierDoor::from_bytes(door));
            }
            TAG_TOKEN => credential = Some(Credential::Token(psk_of(value)?)),
            _ => {}
        }
    }
    if !rest.is_empty() || addresses.is_empty() {
        return Err(JoinError::Incomplete);
    }
    Ok(JoinString {
        addresses,
        doors,
        edge: edge.ok_or(JoinError::Incomplete)?,
        credential: credential.ok_or(JoinError::Incomplete)?,
    })
}

fn text_of(value: &[u8]) -> Result<&str, JoinError> {
    std::str::from_utf8(value).map_err(|_| JoinError::Incomplete)
}

fn psk_of(value: &[u8]) -> Result<Psk, JoinError> {
    Psk::parse(text_of(value)?).map_err(|_| JoinError::Incomplete)
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared(_) => "shared secret",
            Self::Token(_) => "one-time token",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> JoinString {
        JoinString {
            addresses: vec!["edge.example.test:7400".into(), "[::1]:7400".into()],
            doors: vec![CarrierDoor {
                carrier: crate::Carrier::WebSocket,
                port: 443,
            }],
            edge: PublicKey([9; 32]),
            credential: Credential::Token(Psk::from_random(std::array::from_fn(|i| {
                (i * 37) as u8
            }))),
        }
    }

    #[test]
    fn survives_its_text_wrapped_and_shouted() {
        let text = sample().expose();
        assert!(text.starts_with("adit1"));
        assert_eq!(text.parse::<JoinString>().unwrap(), sample());
        let wrapped = format!(" {}\n {} ", &text[..40], text[40..].to_ascii_uppercase());
        assert_eq!(wrapped.parse::<JoinString>().unwrap(), sample());
        assert!(!format!("{:?}", sample()).contains(sample().credential.psk().expose()));
    }

    #[test]
    fn one_changed_character_is_noticed() {
        let text = sample().expose();
        for at in PREFIX.len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(changed.parse::<JoinString>().is_err(), "position {at}");
        }
        assert_eq!(
            "hello".parse::<JoinString>(),
            Err(JoinError::NotAJoinString)
        );
        assert_eq!(text[..60].parse::<JoinString>(), Err(JoinError::Damaged));
    }

    #[test]
    fn a_form_of_later_is_told_as_such() {
        for (text, why) in [
            ("adit2aeaq", JoinError::Newer),
            ("ADIT 9x", JoinError::Newer),
            ("adit0x", JoinError::NotAJoinString),
            ("adit", JoinError::NotAJoinString),
            ("hello", JoinError::NotAJoinString),
        ] {
            assert_eq!(text.parse::<JoinString>(), Err(why), "{text}");
        }
    }
}
