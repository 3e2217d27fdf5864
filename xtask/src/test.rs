//! `cargo xtask test`: everything, in the order in which a failure is cheapest
//! to see, with one total at the end.

use std::process::ExitCode;

use crate::libtest::Seen;
use crate::shell::{Place, Run};
use crate::steps::{Report, Totals};
use crate::{readme, setup, tidy};

/// Runs every step. Only what the tests need is a step that ends the run when
/// it fails: without a peer nothing behind it would say anything new.
pub(crate) fn run(place: &Place) -> ExitCode {
    let mut report = Report::default();
    report.check("what the tests need", || setup::install(place));
    if report.totals().failed == 0 {
        sources(place, &mut report);
        supply(place, &mut report);
        behaviour(place, &mut report);
    }
    if report.close() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn sources(place: &Place, report: &mut Report) {
    report.check("format", || {
        Run::cargo(place, &["fmt", "--all", "--check"]).done()
    });
    report.check("rules of the repository (tidy)", || tidy::check(place));
    report.check("clippy", || {
        Run::cargo(
            place,
            &[
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--locked",
            ],
        )
        .args(["--", "-D", "warnings"])
        .done()
    });
    report.check("documentation builds, its links lead somewhere", || {
        Run::cargo(
            place,
            &["doc", "--quiet", "--workspace", "--locked", "--no-deps"],
        )
        .args(["--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .done()
    });
}

fn supply(place: &Place, report: &mut Report) {
    report.check("dependencies: bans, licences, sources", || {
        Run::cargo(place, &["fetch", "--quiet", "--locked"]).done()?;
        deny(place)
            .args(["--offline", "check", "bans", "licenses", "sources"])
            .done()
    });
    if deny(place).args(["fetch", "db"]).output().is_ok() {
        report.check("dependencies: advisories", || {
            deny(place)
                .args(["check", "--disable-fetch", "advisories"])
                .done()
        });
    } else {
        println!(
            "\ndependencies: advisories were not checked, their database cannot be fetched from here"
        );
    }
}

fn deny(place: &Place) -> Run {
    Run::program(place, place.tools().join("bin").join("cargo-deny"))
}

fn behaviour(place: &Place, report: &mut Report) {
    report.check("the README's demo", || {
        let words = readme::command(place, "cargo run --release -- demo --check")?;
        Run::cargo(place, &[]).args(&words[1..]).done()
    });
    report.check("the link protocol in Python, from its page alone", || {
        for command in ["vectors", "mutate"] {
            Run::program(place, place.venv().join("bin").join("python"))
                .args(["tests/protocol/peer.py", command, "docs/vectors"])
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .done()?;
        }
        Ok(())
    });
    report.step(
        "unit, simulation, end-to-end, fuzz replay and doc tests",
        |totals| tests(place, totals),
    );
}

fn tests(place: &Place, totals: &mut Totals) -> Result<(), String> {
    let mut seen = Seen::default();
    let succeeded = Run::cargo(
        place,
        &["test", "--workspace", "--locked", "--no-fail-fast"],
    )
    .lines(|line| seen.line(line))?;
    *totals = seen.totals;
    if seen.ignored > 0 {
        return Err(format!("{} tests were ignored", seen.ignored));
    }
    match (succeeded, totals.failed) {
        (true, 0) if totals.passed > 0 => Ok(()),
        (true, _) => Err("no test ran".into()),
        (false, 0) => {
            Err("a test did not build, or its process died before it could say which".into())
        }
        (false, failed) => Err(format!("{failed} tests failed, named above")),
    }
}
