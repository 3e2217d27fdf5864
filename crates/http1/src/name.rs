//! Field names that an intermediary must know, found in one look.
//!
//! A name is compared in lower case with `_` and `.` read as `-`, because the
//! gateways of many application servers do the same: `X_Forwarded_For` must
//! not pass where `X-Forwarded-For` does not. A name that matches only after
//! that folding is [`Name::Alias`] and is never forwarded.

/// A field name, classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// Any name without a meaning here: forwarded as it came.
    Other,
    /// Another spelling (`_`, `.`) of a name below: dropped.
    Alias,
    /// `Host`.
    Host,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Connection`.
    Connection,
    /// `Keep-Alive`.
    KeepAlive,
    /// `TE`.
    Te,
    /// `Trailer`: kept, it only announces.
    Trailer,
    /// `Upgrade`.
    Upgrade,
    /// `HTTP2-Settings`, part of an upgrade that is never made.
    Http2Settings,
    /// `Proxy` and `Proxy-*`.
    Proxy,
    /// `Expect`.
    Expect,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `X-Forwarded-Host`.
    XForwardedHost,
    /// `X-Forwarded-Proto`.
    XForwardedProto,
    /// Any other `X-Forwarded-*`.
    XForwarded,
    /// `X-Real-IP`.
    XRealIp,
    /// Other fields by which proxies name the client's address.
    ClientAddress,
    /// `X-Request-Id`.
    XRequestId,
    /// `X-Original-URL`, `X-Rewrite-URL`: would change the path after routing.
    PathOverride,
    /// `Authorization`.
    Authorization,
    /// `Server`.
    Server,
    /// `X-Powered-By`.
    XPoweredBy,
    /// `Location`.
    Location,
    /// `Content-Location`.
    ContentLocation,
    /// `Refresh`.
    Refresh,
    /// `Set-Cookie`.
    SetCookie,
    /// `User-Agent`.
    UserAgent,
    /// `Referer`.
    Referer,
    /// `Date`.
    Date,
}

/// Longest name that is compared whole.
const LONGEST: usize = 32;

/// Each byte in lower case, with the hyphen for what is read as one.
const FOLDED: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut at = 0;
    while at < table.len() {
        let byte = at as u8;
        table[at] = if byte == b'_' || byte == b'.' {
            b'-'
        } else {
            byte.to_ascii_lowercase()
        };
        at += 1;
    }
    table
};

/// Which bytes are `tchar`s.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < table.len() {
        let byte = at as u8;
        table[at] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        at += 1;
    }
    table
};

impl Name {
    /// Classifies a name.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let mut folded = [0u8; LONGEST];
        let length = name.len().min(LONGEST);
        let mut alias = false;
        for (to, from) in folded.iter_mut().zip(name) {
            *to = FOLDED[usize::from(*from)];
            alias |= matches!(from, b'_' | b'.');
        }
        let folded = &folded[..length];
        let known = if name.len() > LONGEST {
            by_prefix(folded)
        } else {
            known(folded)
        };
        if alias && known.is_protected() {
            Self::Alias
        } else if alias {
            Self::Other
        } else {
            known
        }
    }

    /// Whether another spelling of the name could mislead an application.
    fn is_protected(self) -> bool {
        !matches!(
            self,
            Self::Other | Self::UserAgent | Self::Referer | Self::Date
        )
    }

    /// Bound to one connection (RFC 9110 §7.6.1) or to the framing: never
    /// forwarded, in either direction.
    #[must_use]
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::Te
                | Self::Upgrade
                | Self::Http2Settings
                | Self::Proxy
                | Self::TransferEncoding
                | Self::ContentLength
                | Self::Alias
        )
    }

    /// Says who the client is or what it asked for: believed from trusted
    /// proxies only.
    #[must_use]
    pub fn is_forwarded(self) -> bool {
        matches!(
            self,
            Self::Forwarded
                | Self::XForwardedFor
                | Self::XForwardedHost
                | Self::XForwardedProto
                | Self::XForwarded
                | Self::XRealIp
                | Self::ClientAddress
                | Self::XRequestId
                | Self::PathOverride
        )
    }

    /// Must not stand in a trailer section (RFC 9110 §6.5.1).
    #[must_use]
    pub fn is_framing(self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::ContentLength
                | Self::TransferEncoding
                | Self::Connection
                | Self::Upgrade
                | Self::Te
                | Self::Trailer
                | Self::Expect
                | Self::Alias
        )
    }
}

fn known(name: &[u8]) -> Name {
    match name {
        b"te" => Name::Te,
        b"host" => Name::Host,
        b"date" => Name::Date,
        b"proxy" => Name::Proxy,
        b"expect" => Name::Expect,
        b"server" => Name::Server,
        b"trailer" => Name::Trailer,
        b"upgrade" => Name::Upgrade,
        b"referer" => Name::Referer,
        b"refresh" => Name::Refresh,
        b"location" => Name::Location,
        b"forwarded" => Name::Forwarded,
        b"x-real-ip" => Name::XRealIp,
        b"connection" => Name::Connection,
        b"keep-alive" => Name::KeepAlive,
        b"user-agent" => Name::UserAgent,
        b"set-cookie" => Name::SetCookie,
        b"x-request-id" => Name::XRequestId,
        b"x-powered-by" => Name::XPoweredBy,
        b"authorization" => Name::Authorization,
        b"content-length" => Name::ContentLength,
        b"http2-settings" => Name::Http2Settings,
        b"x-original-url" | b"x-rewrite-url" => Name::PathOverride,
        b"x-forwarded-for" => Name::XForwardedFor,
        b"x-forwarded-host" => Name::XForwardedHost,
        b"x-forwarded-proto" => Name::XForwardedProto,
        b"content-location" => Name::ContentLocation,
        b"transfer-encoding" => Name::TransferEncoding,
        b"client-ip"
        | b"x-client-ip"
        | b"true-client-ip"
        | b"fastly-client-ip"
        | b"cf-connecting-ip"
        | b"x-cluster-client-ip" => Name::ClientAddress,
        _ => by_prefix(name),
    }
}

fn by_prefix(name: &[u8]) -> Name {
    if name.starts_with(b"x-forwarded") {
        Name::XForwarded
    } else if name.starts_with(b"proxy-") {
        Name::Proxy
    } else {
        Name::Other
    }
}

/// `tchar` (RFC 9110 §5.6.2).
pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// `token`: one `tchar` or more.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| is_token_byte(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(Name::of(b"HOST"), Name::Host);
        assert_eq!(Name::of(b"x-FORWARDED-for"), Name::XForwardedFor);
        assert_eq!(Name::of(b"X-Forwarded-Prefix"), Name::XForwarded);
        assert_eq!(Name::of(b"X-Forwarded"), Name::XForwarded);
        assert_eq!(Name::of(b"Proxy-Connection"), Name::Proxy);
        assert_eq!(Name::of(b"Accept"), Name::Other);
        assert_eq!(Name::of(b""), Name::Other);
        let long = [b"X-Forwarded-".as_slice(), &[b'a'; 90]].concat();
        assert_eq!(Name::of(&long), Name::XForwarded);
    }

    #[test]
    fn other_spellings_are_aliases() {
        for name in [
            &b"X_Forwarded_For"[..],
            b"x-forwarded_for",
            b"X.Forwarded.For",
            b"X_Real_IP",
            b"Content_Length",
            b"Transfer.Encoding",
            b"Proxy_Connection",
            b"X_Request_Id",
        ] {
            assert_eq!(Name::of(name), Name::Alias);
            assert!(Name::of(name).is_hop_by_hop());
        }
        assert_eq!(Name::of(b"my_header"), Name::Other);
        assert_eq!(Name::of(b"User_Agent"), Name::Other);
    }
}
