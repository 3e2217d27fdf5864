//! Routes of the configuration.

use std::collections::HashMap;
use std::time::Duration;

use adit_config::{Document, Place, Section};
use adit_model::{Code, HostName};
use adit_routing::{PathPrefix, Route, RouteOptions, Target};

use super::auth::{BasicAuth, basic_auth};
use super::{Limits, keys, read};

/// A `[[route]]`.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    /// The route; [`RouteOptions::auth`] is still empty.
    pub route: Route,
    /// What visitors must prove: to be hashed into the route's options.
    pub auth: Option<BasicAuth>,
}

/// Reads all routes; `None` when one of them is wrong.
pub(super) fn routes(document: &Document<'_>, limits: Option<&Limits>) -> Option<Vec<RouteConfig>> {
    let mut seen: HashMap<(HostName, PathPrefix), Place> = HashMap::new();
    let mut routes = Some(Vec::new());
    for section in document.sections(&keys::ROUTE) {
        let config = route(document, &section, limits);
        if let Some(RouteConfig { route, .. }) = &config {
            let key = (route.host.clone(), route.path.clone());
            if let Some(first) = seen.get(&key) {
                repeated(document, &section, route, first);
            } else {
                seen.insert(key, section.place_of("host"));
            }
        }
        match (&mut routes, config) {
            (Some(all), Some(config)) => all.push(config),
            (all, _) => *all = None,
        }
    }
    routes
}

fn repeated(document: &Document<'_>, section: &Section<'_>, route: &Route, first: &Place) {
    let line = document
        .line_of(first)
        .map_or_else(String::new, |line| format!(", first in line {line}"));
    let path = String::from_utf8_lossy(route.path.as_bytes());
    let sentence = format!("`{}{path}` is routed a second time{line}", route.host);
    let help = Some("give one of both another host or path, or remove it");
    section.complain(Code::CONFIG_DUPLICATE, "host", &sentence, help);
}

fn route(
    document: &Document<'_>,
    section: &Section<'_>,
    limits: Option<&Limits>,
) -> Option<RouteConfig> {
    let target = target(section);
    let auth = basic_auth(document, section, &keys::AUTH);
    if let Some(Target::Redirect(_)) = &target {
        for key in [
            "host_header",
            "rewrite",
            "upgrades",
            "answer_seconds",
            "body_megabytes",
        ] {
            if section.is_given(key) {
                let sentence = format!("`{key}` has no meaning beside `redirect`");
                section.complain(Code::CONFIG_CONFLICT, key, &sentence, Some("remove it"));
            }
        }
    }
    let answer = match section.given(&keys::ROUTE_ANSWER) {
        Some(given) => read::nonzero_seconds(given.value),
        None => limits?.answer,
    };
    let body_limit = match section.given(&keys::ROUTE_BODY) {
        Some(given) => read::nonzero_mebibytes(given.value),
        None => limits?.body_bytes,
    };
    let route = Route {
        host: section.get(&keys::HOST)?,
        path: section.get(&keys::PATH)?,
        target: target?,
        options: options(section, answer, body_limit)?,
    };
    Some(RouteConfig { route, auth: auth? })
}

fn options(
    section: &Section<'_>,
    response_timeout: Option<Duration>,
    body_limit: Option<u64>,
) -> Option<RouteOptions> {
    Some(RouteOptions {
        auth: None,
        host_header: section.get(&keys::HOST_HEADER).map(Into::into),
        rewrite: section.get(&keys::REWRITE)?,
        upgrades: section.get(&keys::UPGRADES)?,
        response_timeout,
        body_limit,
        exclusive: section.get(&keys::EXCLUSIVE)?,
    })
}

fn target(section: &Section<'_>) -> Option<Target> {
    const PLACES: [&str; 3] = ["upstream", "agents", "redirect"];
    let given: Vec<&str> = PLACES.into_iter().filter(|k| section.is_given(k)).collect();
    match given[..] {
        [_] => {}
        [] => {
            let help = "add one of upstream = \"http://127.0.0.1:3000\", agents = \"app\", redirect = \"https://…\"";
            let sentence = "the route leads nowhere";
            section.complain(Code::CONFIG_MISSING, "host", sentence, Some(help));
            return None;
        }
        [first, second, ..] => {
            let sentence = format!("the route leads to `{first}` and to `{second}`");
            section.complain(
                Code::CONFIG_CONFLICT,
                second,
                &sentence,
                Some("keep one of them"),
            );
            return None;
        }
    }
    if section.get(&keys::EXCLUSIVE) == Some(true) && given != ["agents"] {
        let sentence = "`exclusive` has a meaning beside `agents` only";
        section.complain(
            Code::CONFIG_CONFLICT,
            "exclusive",
            sentence,
            Some("remove it"),
        );
    }
    let tunnel = section.get(&keys::AGENTS).map(Target::Tunnel);
    let upstream = || section.get(&keys::UPSTREAM).map(Target::Upstream);
    let redirect = || section.get(&keys::REDIRECT).map(Target::Redirect);
    tunnel.or_else(upstream).or_else(redirect)
}
