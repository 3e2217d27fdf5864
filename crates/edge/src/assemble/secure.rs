//! The HTTPS door and its certificates.

use std::sync::Arc;

use crate::config::EdgeConfig;
use crate::http::HttpDoor;
use crate::https::HttpsDoor;
use crate::metrics::Metrics;
use crate::serve::StartError;
use crate::sni::ByName;
use crate::state::Store;
use crate::status::At;
use crate::tcp::TcpDoor;
use crate::tls::generated::Generator;
use crate::tls::unix_now;
use crate::tls::watch::Watch;

/// The HTTPS door, where there is one.
pub(super) fn https(
    config: &EdgeConfig,
    watch: Option<&Watch>,
    (http, streams, names): (&Arc<HttpDoor>, &Arc<TcpDoor>, &Arc<ByName>),
) -> Result<Option<Arc<HttpsDoor>>, StartError> {
    let Some(watch) = watch else { return Ok(None) };
    let doors = (Arc::clone(http), Arc::clone(streams), Arc::clone(names));
    let certificates = Arc::clone(watch.certificates());
    Ok(Some(HttpsDoor::new(
        doors,
        certificates,
        config.limits.head,
    )?))
}

/// What looks after the HTTPS door's certificates, where there is that door.
pub(super) fn watch(
    config: &EdgeConfig,
    at: &At,
    store: &Store,
    metrics: &Arc<Metrics>,
) -> Result<Option<Watch>, StartError> {
    if at.https.is_none() {
        return Ok(None);
    }
    let domain = config.server.domain.clone();
    let generator = Generator::new(Arc::clone(store.folder()), domain);
    let own = generator.open(unix_now())?;
    let metrics = Arc::clone(metrics);
    Ok(Some(Watch::new(
        &config.certificates,
        (generator, own),
        metrics,
    )))
}
