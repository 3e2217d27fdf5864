//! What is to be done with a request: counted, answered by the door itself,
//! or forwarded.

use std::sync::Arc;

use adit_http1::{Authority, Client, Framing, Name, Request, client_address};
use adit_link::Stream;
use adit_routing::{Found, Route, RouteOptions, Target};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::buffer::Work;
use super::enter::limit_extra;
use super::record::{Fault, RequestId};
use super::respond::{After, Extra};
use super::rewrite::is_secure;
use super::server::{Connection, Then};
use super::{HttpDoor, StatsRequest};
use crate::backend::Backend;
use crate::limits::{self, Strike};
use crate::metrics::HttpRefusal;

/// The one path of a public door that is the system's.
const STATS_PATH: &[u8] = b"/_sys/sync_stats";
/// Most bytes of a user name and password, as base64.
const MAX_CREDENTIALS: usize = 1024;
/// When a name that has an owner but no live tunnel is worth another try.
pub(super) const RETRY_SECONDS: u64 = 5;

/// A route to a backend, or to several.
#[derive(Debug)]
pub(super) struct Plan {
    /// The route of the table, unless the name alone leads to a tunnel.
    pub(super) route: Option<Arc<Route>>,
    pub(super) way: Way,
}

/// How a plan finds its backends.
#[derive(Debug)]
pub(super) enum Way {
    /// By the name that the route gives.
    Named,
    /// By the first label of the host.
    Label,
    /// One address.
    Upstream(Arc<Backend>),
}

impl Plan {
    pub(super) fn options(&self) -> Option<&RouteOptions> {
        self.route.as_ref().map(|route| &route.options)
    }
}

/// What was decided.
enum Decision {
    Forward(Plan),
    Redirect(Vec<u8>),
    Stats(Vec<u8>),
    Limited(limits::Refusal),
    Unknown,
    /// The host is none that this TLS connection was made for.
    Misdirected,
    TooLarge,
}

impl Connection {
    /// Answers the request in `work`.
    pub(super) async fn respond(&mut self, work: &mut Work, stop: &CancellationToken) -> Then {
        let decision = self.decide(work);
        let http = &self.door.parts.metrics.http;
        let keep = self.may_keep(work, stop);
        let (status, extra, keep) = match &decision {
            Decision::Forward(plan) => return self.forward(work, plan, stop).await,
            Decision::Redirect(location) => (308, Extra::Location(location), keep),
            Decision::Stats(body) => {
                http.stats_answered.add(1);
                (200, Extra::Body(body), keep)
            }
            Decision::Limited(refusal) => {
                http.refused.of(HttpRefusal::Limited).add(1);
                work.draft.fault = Some(Fault::Text("address is over its limit"));
                (429, limit_extra(*refusal), keep)
            }
            Decision::Unknown => {
                http.refused.of(HttpRefusal::UnknownHost).add(1);
                work.draft.fault = Some(Fault::Text("no such host"));
                (404, Extra::Nothing, false)
            }
            Decision::Misdirected => {
                http.refused.of(HttpRefusal::UnknownHost).add(1);
                work.draft.fault = Some(Fault::Text("host is none of the certificate's"));
                (421, Extra::Nothing, keep)
            }
            Decision::TooLarge => {
                http.refused.of(HttpRefusal::TooLarge).add(1);
                work.draft.fault = Some(Fault::Text("body is too large"));
                (413, Extra::Nothing, false)
            }
        };
        self.tell(work, status, extra, keep).await
    }

    fn decide(&self, work: &mut Work) -> Decision {
        let request = work.head.view(work.input.head());
        let parts = &self.door.parts;
        let peer = self.peer.address.ip();
        let trusted = &parts.settings.trusted;
        let now = work.draft.started.into_std();
        let client = if self.peer.trusted {
            client_address(&request, peer, |ip| {
                trusted.iter().any(|net| net.contains(&ip))
            })
        } else {
            Client {
                address: peer,
                hops: 0,
            }
        };
        (work.draft.client, work.draft.hops) = (client.address, client.hops);
        let given = request
            .value(Name::XRequestId)
            .filter(|_| self.peer.trusted);
        work.draft.id = given
            .and_then(RequestId::given)
            .unwrap_or_else(|| self.door.request_id());
        let counted = if work.draft.client == peer {
            self.permit.request(now)
        } else {
            parts.limits.request(work.draft.client, now)
        };
        if let Err(refusal) = counted {
            return Decision::Limited(refusal);
        }
        if let Some(body) = stats_request(&request, work.draft.client)
            .and_then(|question| parts.stats.answer(&question))
        {
            return Decision::Stats(body);
        }
        if self.is_misdirected(&request) {
            return Decision::Misdirected;
        }
        match look_up(&self.door, &request) {
            Decision::Unknown => Decision::Unknown,
            found => self.https_url(&request).map_or(found, Decision::Redirect),
        }
    }

    /// Whether a request came over a TLS connection that was made for others
    /// (RFC 9110 §7.4).
    fn is_misdirected(&self, request: &Request<'_>) -> bool {
        let Some(served) = self.visitor.served() else {
            return false;
        };
        let host = request.authority().map(|authority| &authority.host);
        host.is_some_and(|host| !served.covers(host))
    }

    /// Where a request that came in plain HTTP has to go, where that is so.
    fn https_url(&self, request: &Request<'_>) -> Option<Vec<u8>> {
        let port = self.door.parts.settings.https?;
        if is_secure(request, &self.peer) {
            return None;
        }
        let Authority { host, .. } = request.authority()?;
        let target = request.target();
        let mut url = match port {
            443 => format!("https://{host}"),
            port => format!("https://{host}:{port}"),
        }
        .into_bytes();
        url.extend_from_slice(match target.path {
            b"*" => b"/",
            path => path,
        });
        if let Some(query) = target.query {
            url.push(b'?');
            url.extend_from_slice(query);
        }
        Some(url)
    }

    /// Whether the connection can go on after an answer of the door's own: a
    /// body that was announced will not be read.
    pub(super) fn may_keep(&self, work: &Work, stop: &CancellationToken) -> bool {
        let request = work.head.view(work.input.head());
        let more = !self.visitor.ended || !work.input.unread().is_empty();
        request.keep_alive() && !request.has_body() && more && !stop.is_cancelled()
    }

    /// Sends an answer of the door's own.
    pub(super) async fn tell(
        &mut self,
        work: &mut Work,
        status: u16,
        extra: Extra<'_>,
        keep_alive: bool,
    ) -> Then {
        let request = work.head.view(work.input.head());
        let has_body = request.has_body();
        let after = After {
            keep_alive,
            visitor: request.version(),
        };
        match (self.answer(work, status, extra, after).await, has_body) {
            (true, _) if keep_alive => Then::Keep,
            (true, true) => Then::Linger,
            _ => Then::Close,
        }
    }

    /// Checks the visitor's password against `auth`; `false` when it was not
    /// right, or none was given.
    pub(super) async fn may_enter(&mut self, work: &Work, auth: &Arc<str>) -> bool {
        let request = work.head.view(work.input.head());
        let Some((user, password)) = request
            .value(Name::Authorization)
            .and_then(basic_credentials)
        else {
            return false;
        };
        let passwords = &self.door.parts.passwords;
        let right = match passwords.recall(auth, &user, &password) {
            Some(known) => known,
            None => self.verify(auth, user, password).await,
        };
        if !right {
            let now = Instant::now().into_std();
            let client = work.draft.client;
            self.door.parts.limits.strike(client, Strike::Login, now);
        }
        right
    }

    async fn verify(&self, auth: &Arc<str>, user: String, password: String) -> bool {
        let Ok(_turn) = self.door.checks.acquire().await else {
            return false;
        };
        let (passwords, auth) = (Arc::clone(&self.door.parts.passwords), Arc::clone(auth));
        // Off this thread: other visitors wait for it.
        let check = tokio::task::spawn_blocking(move || passwords.verify(&auth, &user, &password));
        check.await.unwrap_or(false)
    }
}

fn look_up(door: &HttpDoor, request: &Request<'_>) -> Decision {
    let Some(authority) = request.authority() else {
        return Decision::Unknown;
    };
    let target = request.target();
    let routes = door.routes.load();
    let plan = match routes.table().lookup(&authority.host, target.path) {
        None => return Decision::Unknown,
        Some(Found::Tunnel(_)) => Plan {
            route: None,
            way: Way::Label,
        },
        Some(Found::Route(route)) => {
            let way = match &route.target {
                Target::Tunnel(_) => Way::Named,
                Target::Redirect(redirect) => {
                    let mut location = Vec::new();
                    redirect.write(&mut location, target.path, target.query);
                    return Decision::Redirect(location);
                }
                Target::Upstream(upstream) => match routes.upstreams.get(upstream) {
                    Some(backend) => Way::Upstream(Arc::clone(backend)),
                    None => return Decision::Unknown,
                },
            };
            Plan {
                route: Some(Arc::clone(route)),
                way,
            }
        }
    };
    match (request.framing(), body_limit(door, &plan)) {
        (Framing::Length(length), Some(limit)) if length > limit => Decision::TooLarge,
        _ => Decision::Forward(plan),
    }
}

/// Most bytes of a request body on this plan's route.
pub(super) fn body_limit(door: &HttpDoor, plan: &Plan) -> Option<u64> {
    plan.options()
        .and_then(|options| options.body_limit)
        .or(door.parts.settings.body_bytes)
}

fn stats_request<'r>(request: &Request<'r>, client: std::net::IpAddr) -> Option<StatsRequest<'r>> {
    let target = request.target();
    if target.path != STATS_PATH || target.query.is_some() || request.has_body() {
        return None;
    }
    Some(StatsRequest {
        method: request.method_name(),
        path: target.path,
        timestamp: request.only("x-adit-timestamp")?,
        nonce: request.only("x-adit-nonce")?,
        signature: request.only("x-adit-signature")?,
        client,
    })
}

/// User and password of `Basic <base64>` (RFC 7617).
fn basic_credentials(value: &[u8]) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") || encoded.len() > MAX_CREDENTIALS {
        return None;
    }
    let decoded = data_encoding::BASE64.decode(encoded.trim_ascii()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// A stream to a backend, and whether it carried requests before.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) reused: bool,
}

#[cfg(test)]
mod tests {
    use super::basic_credentials;

    #[test]
    fn credentials_are_read() {
        let read = |text: &str| basic_credentials(text.as_bytes());
        let pair = |u: &str, p: &str| Some((u.to_owned(), p.to_owned()));
        assert_eq!(read("Basic dXNlcjpwYTpzcw=="), pair("user", "pa:ss"));
        assert_eq!(read("basic  dXNlcjo= "), pair("user", ""));
        for bad in ["", "Basic", "Basic !!", "Bearer dXNlcjo=", "Basic dXNlcg=="] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
