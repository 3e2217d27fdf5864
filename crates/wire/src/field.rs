//! The one body encoding: fields of `tag u8 | length u16 BE | bytes`.
//!
//! It was chosen because any language reads it in ten lines, because an
//! unknown field is skipped without knowing its type, and because a length in
//! front of each value lets a decoder refuse before it allocates. Numbers are
//! big-endian and of one fixed width each.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

/// Most bytes of a text field that has no tighter limit of its own.
pub const MAX_TEXT: usize = 1024;

/// Why a body was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("message body is cut short")]
    Truncated,
    /// A field that the message cannot do without is absent.
    #[error("field {0} is missing")]
    Missing(u8),
    /// A field that may stand once stands twice.
    #[error("field {0} is repeated")]
    Repeated(u8),
    /// A field has a length or a value that its type does not have.
    #[error("field {0} is malformed")]
    Malformed(u8),
    /// A row of fields is longer than its limit.
    #[error("too many fields {0}")]
    TooMany(u8),
    /// No message of this kind is known here.
    #[error("unknown message kind {0}")]
    UnknownKind(u8),
}

/// Why a message could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A value is longer than its limit or holds control characters.
    #[error("field {0} does not fit its limits")]
    BadField(u8),
    /// The whole body is longer than a frame.
    #[error("message is longer than a frame")]
    TooLong,
}

pub(crate) fn put(out: &mut Vec<u8>, tag: u8, value: &[u8]) -> Result<(), EncodeError> {
    let length = u16::try_from(value.len()).map_err(|_| EncodeError::BadField(tag))?;
    out.push(tag);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
    Ok(())
}

/// A field whose length is known to fit: fixed-width values.
pub(crate) fn put_fixed<const N: usize>(out: &mut Vec<u8>, tag: u8, value: [u8; N]) {
    const { assert!(N <= 1024) };
    out.push(tag);
    out.extend_from_slice(&(N as u16).to_be_bytes());
    out.extend_from_slice(&value);
}

pub(crate) fn put_text(
    out: &mut Vec<u8>,
    tag: u8,
    text: &str,
    max: usize,
) -> Result<(), EncodeError> {
    if text.len() > max || text.chars().any(char::is_control) {
        return Err(EncodeError::BadField(tag));
    }
    put(out, tag, text.as_bytes())
}

pub(crate) fn put_address(out: &mut Vec<u8>, tag: u8, address: SocketAddr) {
    let [hi, lo] = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            put_fixed(out, tag, [a, b, c, d, hi, lo]);
        }
        IpAddr::V6(v6) => {
            let mut bytes = [0; 18];
            bytes[..16].copy_from_slice(&v6.octets());
            bytes[16..].copy_from_slice(&[hi, lo]);
            put_fixed(out, tag, bytes);
        }
    }
}

/// One field of a body.
#[derive(Clone, Copy)]
pub(crate) struct Field<'a> {
    pub(crate) tag: u8,
    pub(crate) value: &'a [u8],
}

impl<'a> Field<'a> {
    fn malformed(self) -> DecodeError {
        DecodeError::Malformed(self.tag)
    }

    pub(crate) fn array<const N: usize>(self) -> Result<[u8; N], DecodeError> {
        self.value.try_into().map_err(|_| self.malformed())
    }

    pub(crate) fn u8(self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn nonzero_u32(self) -> Result<NonZeroU32, DecodeError> {
        NonZeroU32::new(self.u32()?).ok_or(self.malformed())
    }

    pub(crate) fn u64(self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn flag(self) -> Result<bool, DecodeError> {
        match self.value {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    pub(crate) fn text(self, max: usize) -> Result<&'a str, DecodeError> {
        let text = std::str::from_utf8(self.value).map_err(|_| self.malformed())?;
        if text.len() > max || text.chars().any(char::is_control) {
            return Err(self.malformed());
        }
        Ok(text)
    }

    pub(crate) fn string(self, max: usize) -> Result<String, DecodeError> {
        self.text(max).map(str::to_owned)
    }

    pub(crate) fn address(self) -> Result<SocketAddr, DecodeError> {
        let (ip, port) = self.value.split_last_chunk::<2>().ok_or(self.malformed())?;
        let ip = if let Ok(v4) = <[u8; 4]>::try_from(ip) {
            IpAddr::from(v4)
        } else if let Ok(v6) = <[u8; 16]>::try_from(ip) {
            IpAddr::from(v6)
        } else {
            return Err(self.malformed());
        };
        Ok(SocketAddr::new(ip, u16::from_be_bytes(*port)))
    }
}

/// Calls `take` with each field in order.
pub(crate) fn each<'a>(
    mut body: &'a [u8],
    mut take: impl FnMut(Field<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    while let Some(([tag, hi, lo], rest)) = body.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*hi, *lo]));
        let (value, rest) = rest
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        body = rest;
        take(Field { tag: *tag, value })?;
    }
    if body.is_empty() {
        Ok(())
    } else {
        Err(DecodeError::Truncated)
    }
}

/// Fills a slot that may be filled once.
pub(crate) fn once<T>(slot: &mut Option<T>, tag: u8, value: T) -> Result<(), DecodeError> {
    if slot.replace(value).is_some() {
        return Err(DecodeError::Repeated(tag));
    }
    Ok(())
}

pub(crate) fn need<T>(slot: Option<T>, tag: u8) -> Result<T, DecodeError> {
    slot.ok_or(DecodeError::Missing(tag))
}
