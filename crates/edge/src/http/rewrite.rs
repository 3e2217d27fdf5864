//! The facts by which heads are rewritten on their way.

use adit_http1::{Forwarding, Origin, Request, Upgrade};
use adit_routing::Upgrades;

use super::buffer::Work;
use super::route::Plan;
use super::visitor::{AddressText, Peer};
use crate::backend::Backend;

/// Whether the plan lets the upgrade through that the request asks for.
pub(super) fn passes_upgrade(plan: &Plan, request: &Request<'_>) -> bool {
    let allowed = plan.options().map(|o| o.upgrades).unwrap_or_default();
    match request.upgrade() {
        Upgrade::None => false,
        Upgrade::WebSocket => allowed != Upgrades::None,
        Upgrade::Other => allowed == Upgrades::Any,
    }
}

/// The Host that a backend gets in place of the visitor's.
pub(super) fn host_header<'a>(plan: &'a Plan, backend: &'a Backend) -> Option<&'a str> {
    let of_route = plan.options().and_then(|o| o.host_header.as_deref());
    let of_tunnel = || backend.as_tunnel()?.options.host_header.as_deref();
    of_route.or_else(of_tunnel)
}

/// Appends the request's head, as this backend gets it, to `work.lead`.
pub(super) fn write_lead(
    work: &mut Work,
    plan: &Plan,
    backend: &Backend,
    peer: &Peer,
    has_auth: bool,
) {
    let Work {
        input,
        head,
        lead,
        draft,
        ..
    } = work;
    let request = head.view(input.head());
    // Seldom another than the peer, whose text is at hand.
    let behind = (draft.client != peer.address.ip()).then(|| AddressText::of(draft.client));
    let facts = Forwarding {
        host: host_header(plan, backend).map(str::as_bytes),
        peer: peer.text(),
        client: behind.as_ref().map_or(peer.text(), AddressText::as_str),
        hops: draft.hops,
        trusted: peer.trusted,
        scheme: peer.scheme(),
        request_id: draft.id.as_bytes(),
        upgrade: passes_upgrade(plan, &request),
        drop_authorization: has_auth,
    };
    lead.clear();
    adit_http1::write_request(&mut lead.bytes, &request, &facts);
}

/// The names by which a backend may call itself in its answers.
pub(super) fn origins(plan: &Plan, backend: &Backend) -> Vec<Origin> {
    let target = backend.as_tunnel().map(|t| &*t.options.target);
    [host_header(plan, backend), backend.authority(), target]
        .into_iter()
        .flatten()
        .filter_map(Origin::parse)
        .collect()
}

/// Whether the visitor came by HTTPS: to this edge, or to a proxy whose word
/// counts.
pub(super) fn is_secure(request: &Request<'_>, peer: &Peer) -> bool {
    visitor_origin(request, peer).0 == "https"
}

/// Scheme and Host that the visitor used, for what is put in place of them.
pub(super) fn visitor_origin<'a>(request: &Request<'a>, peer: &Peer) -> (&'static str, &'a [u8]) {
    let facts = Forwarding {
        host: None,
        peer: "",
        client: "",
        hops: 0,
        trusted: peer.trusted,
        scheme: peer.scheme(),
        request_id: b"",
        upgrade: false,
        drop_authorization: false,
    };
    let scheme = match facts.visitor_scheme(request) {
        "https" => "https",
        _ => "http",
    };
    (scheme, facts.visitor_host(request))
}
