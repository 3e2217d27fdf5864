//! Lines of a trunk beside what else happens to their link, and what takes the
//! place of a trunk that is gone.

use std::sync::atomic::AtomicUsize;
use std::task::{Context, Waker};
use std::thread;

use tokio::runtime::{Builder, Handle};

use super::*;

/// Streams that one opener may hold, more than are open when the link is cut.
const MANY: u16 = 4096;
/// What a test waits for at most.
const SOON: Duration = Duration::from_secs(20);

/// Whether the stream knows, without another byte from anywhere.
fn is_cut(stream: &mut Stream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    matches!(
        stream.poll_cut(&mut cx),
        Poll::Ready(StreamError::Truncated)
    )
}

/// The link ends between the look for a line and the stream that it is for: the
/// line is closed with it and carries nothing.
#[tokio::test]
async fn a_line_that_is_found_on_a_link_that_ends_carries_no_stream() {
    let mut world = World::start(Way::Lines, 16).await;
    let (_agent, link) = world.join().await;
    let opened = world.counters.streams_opened.load(Ordering::Relaxed);
    // No other task runs until the stream is asked for.
    link.ended().cancel();
    assert!(link.has_lines());
    let found = link.open_small(&start(1)).await;
    assert!(matches!(found, Err(OpenError::Gone)), "{found:?}");
    let after = world.counters.streams_opened.load(Ordering::Relaxed);
    assert_eq!((after, link.in_use()), (opened, 0));
    assert!(world.tasks.close(Duration::from_secs(5)).await);
}

/// Opens streams on lines, one after the other, and holds them.
async fn open_until_gone(link: &Arc<EdgeLink>, opened: &AtomicUsize) -> Vec<Stream> {
    let mut streams = Vec::new();
    loop {
        match link.open_small(&start(1)).await {
            Ok(stream) => streams.push(stream),
            Err(OpenError::Gone) => return streams,
            // The other thread is late.
            Err(OpenError::Full) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
        opened.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whichever comes first for each of the lines that are opened while the link
/// is cut on another thread, no stream outlives it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_that_opens_while_its_link_is_cut_outlives_it() {
    for round in 0..40 {
        let mut world = World::start(Way::Lines, MANY).await;
        let (_agent, link) = world.join().await;
        let opened = Arc::new(AtomicUsize::new(0));
        let opener = thread::spawn({
            let (link, opened) = (Arc::clone(&link), Arc::clone(&opened));
            let runtime = Handle::current();
            move || runtime.block_on(open_until_gone(&link, &opened))
        });
        while opened.load(Ordering::Relaxed) < 100 {
            tokio::task::yield_now().await;
        }
        link.cut();
        let mut streams = opener.join().unwrap();
        let all = streams.len();
        streams.retain_mut(|stream| !is_cut(stream));
        assert!(
            streams.is_empty(),
            "{} of {all} in round {round}",
            streams.len()
        );
        assert!(!link.has_lines() && link.idle() == 0);
        // A trunk stays until its last line is over.
        assert!(world.tasks.close(Duration::from_secs(5)).await);
    }
}

/// Tasks that do not come to their end, as after a bug, keep no place of the
/// trunks and the idle channels that the edge wants.
#[tokio::test]
async fn a_trunk_that_is_dropped_in_the_middle_gives_its_place_back() {
    let mut world = World::start(Way::Lines, 16).await;
    let worker = || {
        let mut worker = Builder::new_multi_thread();
        worker.worker_threads(1).enable_all().build().unwrap()
    };
    let (doomed, lasting) = (worker(), worker());
    // The first eight that are dialled share one fate.
    let turns = [&doomed, &lasting].map(|worker| vec![worker.handle().clone(); 8]);
    world.config.workers = turns.concat();
    let (_agent, link) = world.join().await;
    let ended = tokio::task::spawn_blocking(|| doomed.shutdown_timeout(SOON));
    ended.await.unwrap();
    let until = async |wanted: bool| {
        let changed = async {
            while link.has_lines() != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, changed).await
    };
    until(false).await.unwrap();
    for _ in 0..8 {
        link.send(Message::ChannelsWanted { idle: 2, trunks: 1 });
    }
    until(true).await.unwrap();
    assert!(world.tasks.close(SOON).await);
    lasting.shutdown_background();
}
