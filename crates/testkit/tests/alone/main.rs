//! Tests that count what this process holds: they run one after the other, and
//! apart from all others.

mod leaks;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by the one test that runs.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
