//! What `adit status` and `adit top` show of a running edge or agent.
//!
//! Pure: reports, the time between them and the room on the terminal in, lines
//! or JSON out. What comes from an edge holds words of its agents, and the other way round, so that
//! everything goes through [`terminal::plain`](crate::terminal::plain).

mod agent;
mod page;
mod rates;
mod table;
mod units;

pub(crate) use self::agent::agent;
pub(crate) use self::page::{Look, status, top};
pub(crate) use self::rates::Moment;
pub(crate) use self::table::{Table, text};
pub(crate) use self::units::span;
