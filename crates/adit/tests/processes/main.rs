//! The binary as its users run it: processes that are started, signalled,
//! killed and started again.

#![expect(
    clippy::unwrap_used,
    reason = "code for tests alone, where a panic is how a test fails"
)]

mod crowd;
mod kill;
mod whole;

use adit_testkit::program::Program;

fn adit() -> Program {
    Program::new(env!("CARGO_BIN_EXE_adit"))
}
