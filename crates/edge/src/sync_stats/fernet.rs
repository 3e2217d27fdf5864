//! Fernet tokens (the published specification, version 0x80), sealing only.
//!
//! `0x80 | unix seconds u64 BE | IV 16 | AES-128-CBC, PKCS 7 | HMAC-SHA256`, in
//! base64url with padding; the key is 16 bytes for the MAC, then 16 for the
//! cipher.

use aws_lc_rs::cipher::{AES_128, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

const VERSION: u8 = 0x80;

/// Seals `plain`. The IV must be fresh random bytes.
pub(super) fn seal(
    key: &[u8; 32],
    unix: u64,
    iv: [u8; 16],
    plain: &[u8],
) -> Result<String, Unspecified> {
    let (mac_key, cipher_key) = key.split_at(16);
    let mut sealed = plain.to_vec();
    let cipher_key = UnboundCipherKey::new(&AES_128, cipher_key)?;
    let context = EncryptionContext::Iv128(FixedLength::from(&iv));
    PaddedBlockEncryptingKey::cbc_pkcs7(cipher_key)?.less_safe_encrypt(&mut sealed, context)?;
    let mut token = Vec::with_capacity(57 + sealed.len());
    token.push(VERSION);
    token.extend_from_slice(&unix.to_be_bytes());
    token.extend_from_slice(&iv);
    token.extend_from_slice(&sealed);
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, mac_key), &token);
    token.extend_from_slice(mac.as_ref());
    Ok(data_encoding::BASE64URL.encode(&token))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `generate.json` of the specification.
    #[test]
    fn a_token_is_the_published_one() {
        let key = data_encoding::BASE64URL
            .decode(b"cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=")
            .unwrap();
        let iv = std::array::from_fn(|i| i as u8);
        let token = seal(&key.try_into().unwrap(), 499_162_800, iv, b"hello").unwrap();
        assert_eq!(
            token,
            "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA=="
        );
    }
}
