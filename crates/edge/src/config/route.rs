//! Routes of the configuration.

use std::collections::HashMap;

use adit_config::{BasicAuth, Document, Origin, Place, Section};
use adit_model::{Code, HostName, TunnelName};

use super::keys;

/// A `[[route]]`.
#[derive(Clone, Debug)]
pub struct Route {
    /// The host name that visitors ask for.
    pub host: HostName,
    /// A path prefix in normal form, without a final slash; `/` alone is all.
    pub path: String,
    /// What it leads to.
    pub service: Service,
    /// What visitors must prove.
    pub auth: Option<BasicAuth>,
    /// The `Host` that the service is shown.
    pub host_header: Option<String>,
}

/// What a route leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// A plain HTTP service that the edge reaches itself.
    Upstream(Origin),
    /// The agents with a tunnel of this name.
    Agents {
        /// The name.
        tunnel: TunnelName,
        /// Whether one agent at a time may hold it.
        exclusive: bool,
    },
    /// Another URL.
    Redirect(String),
}

/// Reads all routes; `None` when one of them is wrong.
pub(super) fn routes(document: &Document<'_>) -> Option<Vec<Route>> {
    let mut seen: HashMap<(HostName, String), Place> = HashMap::new();
    let mut routes = Some(Vec::new());
    for section in document.sections(&keys::ROUTE) {
        let route = route(document, &section);
        if let Some(route) = &route {
            let key = (route.host.clone(), route.path.clone());
            if let Some(first) = seen.get(&key) {
                repeated(document, &section, route, first);
            } else {
                seen.insert(key, section.place_of("host"));
            }
        }
        match (&mut routes, route) {
            (Some(all), Some(route)) => all.push(route),
            (all, _) => *all = None,
        }
    }
    routes
}

fn repeated(document: &Document<'_>, section: &Section<'_>, route: &Route, first: &Place) {
    let line = document
        .line_of(first)
        .map_or_else(String::new, |line| format!(", first in line {line}"));
    let sentence = format!(
        "`{}{}` is routed a second time{line}",
        route.host,
        if route.path == "/" { "" } else { &route.path }
    );
    let help = Some("give one of both another host or path, or remove it");
    section.complain(Code::CONFIG_DUPLICATE, "host", &sentence, help);
}

fn route(document: &Document<'_>, section: &Section<'_>) -> Option<Route> {
    let service = service(section);
    let auth = section.basic_auth(document, &keys::AUTH);
    if let Some(Service::Redirect(_)) = &service
        && section.is_given("host_header")
    {
        let sentence = "`host_header` has no meaning beside `redirect`";
        section.complain(
            Code::CONFIG_CONFLICT,
            "host_header",
            sentence,
            Some("remove it"),
        );
    }
    Some(Route {
        host: section.get(&keys::HOST)?,
        path: section.get(&keys::PATH)?,
        service: service?,
        auth: auth?,
        host_header: section.get(&keys::HOST_HEADER),
    })
}

fn service(section: &Section<'_>) -> Option<Service> {
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
    let exclusive = section.get(&keys::EXCLUSIVE)?;
    if let Some(tunnel) = section.get(&keys::AGENTS) {
        return Some(Service::Agents { tunnel, exclusive });
    }
    if exclusive {
        let sentence = "`exclusive` has a meaning beside `agents` only";
        section.complain(
            Code::CONFIG_CONFLICT,
            "exclusive",
            sentence,
            Some("remove it"),
        );
    }
    let upstream = section.get(&keys::UPSTREAM).map(Service::Upstream);
    upstream.or_else(|| section.get(&keys::REDIRECT).map(Service::Redirect))
}
