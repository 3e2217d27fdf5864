//! The proxy that the environment names for web pages: `HTTPS_PROXY` or
//! `ALL_PROXY`, but for what `NO_PROXY` lists.

use std::env;
use std::sync::Arc;

use adit_agent::WebProxy;
use adit_link::proxy::Proxy;
use hyper_util::client::proxy::matcher::Matcher;

const NAMES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Reads the environment; what it names and cannot be used is logged.
pub(crate) fn from_environment() -> Option<WebProxy> {
    let given = |name: &&str| env::var(name).ok().filter(|text| !text.is_empty());
    let (name, text) = NAMES.iter().find_map(|name| Some((name, given(name)?)))?;
    // Written without its scheme it is an HTTP proxy, as for other programs.
    let url = match text.contains("://") {
        true => text,
        false => format!("http://{text}"),
    };
    let proxy = match url.parse::<Proxy>() {
        Ok(proxy) => proxy,
        Err(why) => {
            tracing::warn!(%why, "{name} is not used");
            return None;
        }
    };
    let except = ["NO_PROXY", "no_proxy"].iter().find_map(given);
    let matcher = Matcher::builder()
        .all(url)
        .no(except.unwrap_or_default())
        .build();
    Some(Arc::new(move |target: &str| {
        let target = format!("https://{target}").parse().ok()?;
        matcher.intercept(&target).map(|_| proxy.clone())
    }))
}
