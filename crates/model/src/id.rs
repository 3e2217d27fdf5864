//! Small ids: numbers that must not be mixed up.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A live link on one edge process, never reused within it.
    LinkId(u64)
);
number!(
    /// A tunnel within one link, chosen by the agent when it opens it.
    TunnelId(u32)
);
number!(
    /// One visitor stream on one edge process.
    ConnId(u64)
);

/// A random id of one agent process: tells a restart from a second agent that
/// runs with the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstanceId(pub [u8; 16]);
