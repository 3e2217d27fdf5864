//! `cargo xtask`: what is done to this repository rather than by it.
//!
//! Few dependencies, so that the first command of a stranger does not begin
//! with a long build. Whatever a command installs lands below the target
//! folder, the system packages of [`setup`] aside, and is named before it is
//! installed.

#![expect(
    clippy::print_stdout,
    reason = "a command line tool speaks on its standard output"
)]

mod fuzz;
mod libtest;
mod metadata;
mod readme;
mod setup;
mod shell;
mod source;
mod steps;
mod test;
mod tidy;

use std::process::ExitCode;

use shell::Place;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test              install what the tests need, run everything, close with one total
  setup             only install what the tests need, and say what that is
  tidy              the rules of this repository that no compiler checks
  fuzz [TARGET] [N] N inputs (default 1,000,000) for one fuzz target or for all of them
  bench [ARGS]      the side-by-side benches, with the table they print
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = Place::find().and_then(|place| run(&place, command, rest));
    match outcome {
        Ok(code) => code,
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(place: &Place, command: &str, rest: &[String]) -> Result<ExitCode, String> {
    match command {
        "test" => Ok(test::run(place)),
        "setup" => setup::install(place).map(|()| ExitCode::SUCCESS),
        "tidy" => tidy::run(place),
        "fuzz" => fuzz::run(place, rest),
        "bench" => shell::Run::cargo(
            place,
            &[
                "run",
                "--release",
                "--quiet",
                "--package",
                "adit-bench",
                "--",
            ],
        )
        .args(rest)
        .done()
        .map(|()| ExitCode::SUCCESS),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => Err(format!("there is no command {other}\n\n{USAGE}")),
    }
}
