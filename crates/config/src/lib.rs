//! Configuration: a TOML text and environment variables become typed values.
//!
//! One declaration of a key ([`Key`]: name, kind, default, help) drives the
//! parser, the JSON schema ([`schema`]) and the reference page ([`reference()`]),
//! so that they cannot disagree. A [`Document`] is read in two passes: the
//! first checks every key against the [`Spec`] and collects all mistakes, the
//! second (the caller's) picks typed values and adds what only it can know.
//!
//! Invariants: nothing here touches a file, the environment or a terminal
//! (both arrive as closures of [`Input`]); a value of a secret key never
//! enters a [`Mistake`]; unknown keys are always mistakes.

mod document;
mod excerpt;
mod key;
mod kind;
mod log;
mod mistake;
mod network;
mod places;
mod raw;
mod reference;
mod secret;
mod section;
mod syntax;

pub use document::{CommandOption, Document, Input, Place, Placed};
pub use key::{AnyKey, Key, SectionSpec, Spec};
pub use kind::{
    Address, Choice, Complaint, Flag, Folder, Kind, ListOf, Number, Parsed, SecretText,
};
pub use log::{LOG_FORMAT, LOG_LEVEL, LogFormat, LogLevel};
pub use mistake::{Excerpt, Mistake, Mistakes, Paint, Where};
pub use network::parse_network;
pub use places::default_data;
pub use raw::Raw;
pub use reference::{reference, schema};
pub use secret::SecretRef;
pub use section::Section;
