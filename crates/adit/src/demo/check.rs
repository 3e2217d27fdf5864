//! `adit demo --check`: the page through the whole path.

use std::time::{Duration, Instant};

use adit_edge::Facts;
use adit_model::Code;

use super::fetch::Visitor;
use super::site::Site;
use crate::failure::Failure;
use crate::{Outcome, terminal};

/// Requests whose median round trip is told.
const ROUNDS: usize = 21;

/// Fetches the site's page at the HTTP door and says what was verified.
///
/// # Errors
/// Which step did not answer as it must.
pub(super) async fn run(facts: &Facts, site: &Site, url: &str, shown: &terminal::Facts) -> Outcome {
    let good = |what: &str| shown.add(&format!("ok  {what}"));
    good(&format!(
        "the agent's link to {} is live: {}",
        facts.link, facts.fingerprint
    ));
    let host = url.trim_start_matches("http://");
    let door = facts.http;
    let mut visitor = Visitor::connect(door, host)
        .await
        .map_err(|error| failed("the HTTP door", &error))?;
    let answer = visitor
        .get("/")
        .await
        .map_err(|error| failed(url, &error))?;
    if answer.status != 200 {
        return Err(failed(
            url,
            &format!("status {} instead of 200", answer.status),
        ));
    }
    let page = String::from_utf8_lossy(&answer.body);
    if !page.contains(site.mark()) {
        return Err(failed(url, &"the page is not the sample site's"));
    }
    good(&format!(
        "{url} answers 200 with the sample site's page, {} bytes",
        page.len()
    ));
    if !page.contains(host) || page.contains("<dd id=\"visitor\">none") {
        return Err(failed(url, &"the site was not told who visits which host"));
    }
    good("the site was told the visitor's address and the host");
    stranger(facts).await?;
    good("a host that nobody publishes is refused");
    let trip = round_trip(&mut visitor)
        .await
        .map_err(|error| failed(url, &error))?;
    shown.add(&format!(
        "round trip {} µs through door, link, agent and site (median of {ROUNDS})",
        trip.as_micros()
    ));
    Ok(())
}

/// No route leads anywhere but to what was published.
async fn stranger(facts: &Facts) -> Outcome {
    let step = "a host that nobody publishes";
    let mut visitor = Visitor::connect(facts.http, "nobody.invalid")
        .await
        .map_err(|error| failed(step, &error))?;
    match visitor.get("/").await {
        Ok(answer) if answer.status < 400 => Err(failed(
            step,
            &format!("answered with status {}", answer.status),
        )),
        // Refused with a status, or by closing the connection.
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn round_trip(visitor: &mut Visitor) -> std::io::Result<Duration> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        visitor.get("/").await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[ROUNDS / 2])
}

fn failed(step: &str, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::CHECK_FAILED, format!("{step}: {why}"))
}
