//! One round of dialling: every address of the edge, until one is it.

use adit_link::agent::{AgentLink, DialConfig, DialError, Unreached, Way, dial};

/// Addresses that one round tries at most.
const MAX_ADDRESSES: usize = 16;

/// Resolves anew and tries each address in turn. What an edge has said is
/// final; silence or nonsense may come from something else that listens there,
/// so the next address has its turn.
pub(crate) async fn reach(config: &DialConfig) -> Result<AgentLink, DialError> {
    let (places, mut failures) = resolve(&config.addresses).await;
    let (mut talked, mut way) = (None, Way::Unresolved);
    for place in places {
        let one = DialConfig {
            addresses: vec![place],
            ..config.clone()
        };
        match Box::pin(dial(&one)).await {
            Err(DialError::Unreachable(unreached)) => {
                way = way.max(unreached.way);
                failures.push(unreached.why);
            }
            Err(DialError::Io(error)) => {
                way = way.max(Way::Unanswered);
                failures.push(error.to_string());
            }
            // Silence says more than nonsense: an edge may be there.
            Err(DialError::Silent) => talked = Some(DialError::Silent),
            Err(error @ DialError::Broken(_)) => talked = talked.or(Some(error)),
            decided => return decided,
        }
    }
    let why = failures.join("; ");
    Err(talked.unwrap_or(DialError::Unreachable(Unreached { why, way })))
}

/// Socket addresses as text, and why names did not resolve.
async fn resolve(addresses: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut places, mut failures) = (Vec::new(), Vec::new());
    for address in addresses {
        match tokio::net::lookup_host(address).await {
            Ok(found) => {
                for place in found.map(|place| place.to_string()) {
                    if places.len() < MAX_ADDRESSES && !places.contains(&place) {
                        places.push(place);
                    }
                }
            }
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    (places, failures)
}
