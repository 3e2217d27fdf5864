//! `cargo xtask fuzz`: the fuzz targets with as many inputs as asked for.
//!
//! The targets are ordinary tests of the `fuzz` crate that the test command
//! runs too, with few inputs; here they run optimised, with overflow checks.

use std::process::ExitCode;

use crate::shell::{Place, Run};

const INPUTS: &str = "1000000";

/// Takes a target's name, a number of inputs, both in either order, or none.
pub(crate) fn run(place: &Place, arguments: &[String]) -> Result<ExitCode, String> {
    let (mut target, mut inputs) = (None, INPUTS);
    for argument in arguments {
        if argument.bytes().all(|b| b.is_ascii_digit()) {
            inputs = argument;
        } else {
            target = Some(argument);
        }
    }
    println!("fuzzing with {inputs} inputs a target");
    Run::cargo(
        place,
        &[
            "test",
            "--profile",
            "fuzz",
            "--locked",
            "--package",
            "adit-fuzz",
        ],
    )
    .args(["--"])
    .args(target)
    .env("BOLERO_RANDOM_ITERATIONS", inputs)
    // Otherwise a time limit of its own would end a target first.
    .env("BOLERO_RANDOM_TEST_TIME_MS", "86400000")
    .done()?;
    Ok(ExitCode::SUCCESS)
}
