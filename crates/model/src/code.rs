//! Stable error codes, `ADIT-1203`: each has a paragraph in `docs/errors.md`.
//!
//! 1xxx use and configuration, 2xxx the machine, 3xxx link and admission,
//! 4xxx tunnels and their targets, 5xxx the edge. Invariant: a number is never
//! given to another meaning, and never leaves [`Code::ALL`].

use std::fmt;

/// Who must act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The person at this terminal: wrong use or configuration.
    Yours,
    /// The machine: a port, a file, a disk, a service behind a tunnel.
    Machine,
    /// The other side of the link, which refused.
    OtherSide,
    /// The way between: the other side was not reached.
    Network,
}

impl Fault {
    /// The exit status of a command that ended by such an error: 1 failed,
    /// 2 wrong use, 3 refused by the other side, 4 unreachable (0 is success).
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Machine => 1,
            Self::Yours => 2,
            Self::OtherSide => 3,
            Self::Network => 4,
        }
    }
}

/// A stable error code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code {
    /// The number behind `ADIT-`.
    pub number: u16,
    /// A few words.
    pub title: &'static str,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ADIT-{}", self.number)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! catalogue {
    ($($name:ident = $number:literal, $fault:ident, $title:literal;)+) => {
        impl Code {
            $(
                #[doc = concat!("`ADIT-", $number, "`: ", $title, ".")]
                pub const $name: Self = Self { number: $number, title: $title };
            )+

            /// Every code, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Who must act.
            #[must_use]
            pub const fn fault(self) -> Fault {
                match self.number {
                    $($number => Fault::$fault,)+
                    _ => Fault::OtherSide,
                }
            }
        }
    };
}

catalogue! {
    // 1xxx: use and configuration
    USAGE = 1001, Yours, "the command line is not understood";
    BAD_TARGET = 1002, Yours, "the target is not understood";
    BAD_NAME = 1003, Yours, "the name is not a host label";
    BAD_AUTH = 1004, Yours, "the user and password are not understood";
    KEY_EXISTS = 1006, Yours, "there is an identity already";
    NO_IDENTITY = 1007, Yours, "there is no identity yet";
    CONFIG_UNREADABLE = 1101, Yours, "the configuration file cannot be read";
    CONFIG_SYNTAX = 1102, Yours, "the configuration is not valid TOML";
    CONFIG_UNKNOWN_KEY = 1103, Yours, "the configuration has an unknown key";
    CONFIG_WRONG_TYPE = 1104, Yours, "a value has the wrong type";
    CONFIG_OUT_OF_RANGE = 1105, Yours, "a number is out of range";
    CONFIG_BAD_VALUE = 1106, Yours, "a value is not understood";
    CONFIG_MISSING = 1107, Yours, "a required key is missing";
    CONFIG_DUPLICATE = 1108, Yours, "the same thing is configured twice";
    CONFIG_CONFLICT = 1109, Yours, "two settings contradict each other";
    SECRET_UNREADABLE = 1110, Yours, "a secret cannot be read from where it is kept";
    SECRET_WEAK = 1111, Yours, "the secret could be guessed";
    JOIN_DAMAGED = 1201, Yours, "the join string is damaged";
    JOIN_NEWER = 1202, Yours, "the join string is of a newer version";
    JOIN_ABSENT = 1203, Yours, "this machine has not joined an edge";
    BAD_PIN = 1204, Yours, "the PIN is not six characters of its alphabet";
    PIN_ABSENT = 1205, Yours, "the edge wants a PIN and none was given";

    // 2xxx: the machine
    PORT_IN_USE = 2001, Machine, "the address is in use";
    PORT_FORBIDDEN = 2002, Machine, "the port needs more rights";
    ADDRESS_ABSENT = 2003, Machine, "the address is not on this machine";
    DOOR_FAILED = 2004, Machine, "a door could not be opened";
    DATA_UNREADABLE = 2101, Machine, "the data folder cannot be used";
    DATA_FORBIDDEN = 2102, Machine, "the data folder belongs to someone else";
    DISK_FULL = 2103, Machine, "the disk is full";
    DATA_IN_USE = 2104, Machine, "another process uses the data folder";
    DATA_DAMAGED = 2105, Machine, "a file in the data folder is damaged";
    DATA_EXPOSED = 2106, Machine, "other users can read a secret file";
    NO_EDGE_RUNNING = 2201, Machine, "no edge runs on this data folder";
    DESCRIPTORS = 2202, Machine, "too few file descriptors are allowed";
    RUNTIME_FAILED = 2203, Machine, "a worker could not be started";
    OUTPUT_CLOSED = 2204, Machine, "the output could not be written";
    NO_AGENT_RUNNING = 2205, Machine, "no agent runs on this data folder";

    CERTIFICATE_BAD = 2301, Yours, "a certificate cannot be used";
    CERTIFICATE_ENDS = 2302, Yours, "a certificate ends soon";

    // 3xxx: link and admission
    EDGE_UNREACHABLE = 3001, Network, "the edge cannot be reached";
    EDGE_NAME_UNKNOWN = 3002, Network, "the edge's name does not resolve";
    EDGE_SILENT = 3003, Network, "the edge does not answer";
    LINK_LOST = 3004, Network, "the link to the edge was lost";
    WRONG_EDGE = 3005, OtherSide, "the edge has another key than expected";
    REFUSED = 3006, OtherSide, "the edge refused this agent";
    REVOKED = 3007, OtherSide, "the edge has revoked this agent";
    SUPERSEDED = 3008, OtherSide, "another process took this agent's place";
    DRAINING = 3009, OtherSide, "the edge is going away";
    EDGE_FULL = 3010, OtherSide, "the edge has as many agents as it takes";
    PROTOCOL = 3011, OtherSide, "the other side broke the link protocol";

    // 4xxx: tunnels and their targets
    TUNNEL_REFUSED = 4001, OtherSide, "the edge refused the tunnel's name";
    TOO_MANY_TUNNELS = 4002, OtherSide, "the agent has as many tunnels as the edge allows";
    TUNNEL_KIND = 4003, OtherSide, "the edge does not carry this kind of tunnel";
    PORT_REFUSED = 4004, OtherSide, "the edge refused the tunnel's port";
    DATAGRAM_TOO_LARGE = 4021, Network, "datagrams are larger than the target's network takes";
    DATAGRAMS_DROPPED = 4022, Network, "datagrams come faster than the link takes them";
    LISTEN_FAILED = 4031, Machine, "a local port for a private tunnel cannot be opened";
    FORWARD_REFUSED = 4032, OtherSide, "a private tunnel was not reached";
    WRONG_PEER = 4033, OtherSide, "another agent answered for a private tunnel";
    PEER_REFUSED = 4034, OtherSide, "the agent of a private tunnel does not let this one in";
    TARGET_REFUSED = 4101, Machine, "nothing listens at the target";
    TARGET_UNREACHABLE = 4102, Machine, "the target cannot be reached";
    TARGET_UNKNOWN = 4103, Machine, "the target's name does not resolve";
    TARGET_TLS = 4104, Machine, "the target's TLS was refused";
    TARGET_NOT_HTTP = 4105, Machine, "the target does not speak HTTP";
    TARGET_CLOSED = 4106, Machine, "the target closed the connection in the middle";
    TARGET_SLOW = 4107, Machine, "the target did not answer in time";
    TARGET_FORBIDDEN = 4108, Yours, "this agent may not reach the target";

    // 5xxx: the edge
    NO_SUCH_AGENT = 5001, Yours, "no agent has this key";
    NO_SUCH_EDGE = 5002, Yours, "no such edge is remembered";
    CHECK_FAILED = 5003, Machine, "the demo's own check failed";
    NO_BACKEND = 5004, Machine, "no backend of the service is live";
    DOOR_LOST = 5005, Machine, "a door stopped accepting";
    DRAIN_CUT = 5006, Machine, "streams were cut at the end of the drain";
    EDGE_FORGOTTEN = 5007, Machine, "the edge was forgotten while an agent ran";
    CERTIFICATE_KEPT = 5021, Yours, "a changed certificate was not taken";
}

impl Code {
    /// The code of a number that came over the link, when this version knows
    /// it.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.number == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Heading line -> text below it, of the page that explains the codes.
    fn paragraphs() -> Vec<(&'static str, &'static str)> {
        include_str!("../../../docs/errors.md")
            .split("\n### ")
            .skip(1)
            .filter_map(|part| part.split_once('\n'))
            .map(|(head, text)| (head, text.split("\n## ").next().unwrap_or(text)))
            .collect()
    }

    #[test]
    fn numbers_are_unique_and_in_order() {
        assert!(Code::ALL.windows(2).all(|w| w[0].number < w[1].number));
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number), Some(*code));
            assert!((1000..6000).contains(&code.number), "{code}");
        }
        assert_eq!(Code::from_number(1), None);
    }

    #[test]
    fn every_code_has_a_paragraph_and_every_paragraph_a_code() {
        let headings: Vec<String> = paragraphs().iter().map(|(h, _)| (*h).to_owned()).collect();
        let codes: Vec<String> = Code::ALL
            .iter()
            .map(|c| format!("{c}: {}", c.title))
            .collect();
        assert_eq!(headings, codes);
    }

    #[test]
    fn every_paragraph_says_what_why_and_what_to_do() {
        for (heading, text) in paragraphs() {
            assert!(text.len() > 120, "{heading} says too little");
            assert!(text.contains("**Do:**"), "{heading} names no remedy");
            assert!(!text.contains('!'), "{heading} shouts");
        }
    }

    #[test]
    fn exit_statuses_follow_the_fault() {
        assert_eq!(Code::CONFIG_SYNTAX.fault().exit_status(), 2);
        assert_eq!(Code::PORT_IN_USE.fault().exit_status(), 1);
        assert_eq!(Code::REFUSED.fault().exit_status(), 3);
        assert_eq!(Code::EDGE_UNREACHABLE.fault().exit_status(), 4);
    }
}
