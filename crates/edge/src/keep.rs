//! What looks after the whole edge: pools, names, session ids, revocations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adit_link::Counters;
use adit_wire::TunnelKind;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::metrics::{Counter, Direction, Metrics};
use crate::ports::Ports;
use crate::registry::Registry;
use crate::tls::watch::{EVERY, Watch};

/// How often idle channels are looked at, well below their ping time.
const POOLS_EVERY: Duration = Duration::from_secs(5);
/// How often names and session ids are renewed; ids change every 10 minutes
/// and their neighbours are known too.
const HOUSE_EVERY: Duration = Duration::from_secs(5);

/// Looks after the idle channels of one worker.
pub(crate) async fn pools(registry: Arc<Registry>, stop: CancellationToken) {
    let mut tick = interval(POOLS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        // A worker's whole pool is looked at in one turn. Without this the
        // runtime's budget would end in the middle of it, and what it answers
        // then looks like a channel that has nothing to say.
        unconstrained(async {
            for link in registry.links() {
                link.sweep();
            }
        })
        .await;
    }
}

/// Looks after names, session ids, and what admission keeps.
pub(crate) async fn house(
    registry: Arc<Registry>,
    admission: Arc<Admission>,
    ports: [(Arc<Ports>, TunnelKind); 2],
    stop: CancellationToken,
) {
    let mut tick = interval(HOUSE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let now = Instant::now().into_std();
        registry.expire(now);
        for (ports, kind) in &ports {
            ports.sweep(|name| registry.keeps(name, *kind));
        }
        registry.refresh_sessions(admission.unix_now());
        admission.maintain(now).await;
    }
    if let Err(error) = admission.flush().await {
        tracing::error!(%error, "the agents' last times could not be saved");
    }
}

/// Looks after the HTTPS door's certificates.
pub(crate) async fn certificates(watch: Watch, stop: CancellationToken) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = watch;
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        // Off this thread: files may be slow.
        let look = tokio::task::spawn_blocking(move || {
            watch.look();
            watch
        });
        watch = match look.await {
            Ok(watch) => watch,
            Err(error) => {
                tracing::error!(%error, "certificates are not looked after any more");
                return;
            }
        };
    }
}

/// Copies the driver's counters and the registry's sizes to the metrics.
pub(crate) async fn counters(
    metrics: Arc<Metrics>,
    counters: Arc<Counters>,
    registry: Arc<Registry>,
    stop: CancellationToken,
) {
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let link = &metrics.link;
        let links = registry.links();
        link.channels_idle
            .set(links.iter().map(|link| link.idle()).sum());
        link.channels_busy
            .set(links.iter().map(|link| link.in_use()).sum());
        link.tunnels.set(registry.tunnels());
        raise(&link.channels_opened, &counters.channels_opened);
        raise(&link.lines_opened, &counters.lines_opened);
        raise(&link.recycled, &counters.streams_recycled);
        raise(&link.streams, &counters.streams_opened);
        raise(&link.frames_refused, &counters.bad_frames);
        raise(link.bytes.of(Direction::In), &counters.bytes_in);
        raise(link.bytes.of(Direction::Out), &counters.bytes_out);
        raise(link.unpacked.of(Direction::In), &counters.unpacked_in);
        raise(link.unpacked.of(Direction::Out), &counters.unpacked_out);
        raise(link.packed.of(Direction::In), &counters.packed_in);
        raise(link.packed.of(Direction::Out), &counters.packed_out);
        raise(&link.datagrams_beside, &counters.datagrams_beside);
        raise(&link.datagrams_dropped, &counters.datagrams_dropped);
        raise(&link.strangers_dropped, &counters.strangers_dropped);
        raise(&link.knocks_refused, &counters.knocks_refused);
        raise(&link.paused_cut, &counters.paused_cut);
    }
}

/// Lifts a metric to what the driver has counted.
fn raise(metric: &Counter, counted: &AtomicU64) {
    let counted = counted.load(Ordering::Relaxed);
    metric.add(counted.saturating_sub(metric.get()));
}
