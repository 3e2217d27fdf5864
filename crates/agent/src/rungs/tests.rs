use std::future::pending;
use std::sync::Mutex;

use tokio::time::timeout;

use super::*;

/// What a rung does: after so long.
#[derive(Clone, Copy)]
enum Does {
    Hangs,
    Fails(u64),
    /// Has a connection, and is silent.
    Connects(u64),
    /// The edge proves itself, and so much later all is done.
    Proves(u64, u64),
    /// The same, but it comes to nothing.
    Breaks(u64, u64),
}

type Log = Mutex<Vec<(usize, u64)>>;

/// Plays a round; what was begun when, and how it ended and when.
async fn play(
    rungs: &[Does],
    last: Option<usize>,
) -> (Result<usize, Vec<usize>>, u64, Vec<(usize, u64)>) {
    let (start, log) = (Instant::now(), Log::default());
    let millis = || u64::try_from(start.elapsed().as_millis()).unwrap();
    let wait = |millis| timeout(Duration::from_millis(millis), pending::<()>());
    let dial = |number: usize, turn: Turn| {
        log.lock().unwrap().push((number, millis()));
        let does = rungs[number];
        async move {
            match does {
                Does::Hangs => pending().await,
                Does::Fails(after) => drop(wait(after).await),
                Does::Connects(after) => {
                    drop(wait(after).await);
                    turn.has_connected();
                    pending::<()>().await;
                }
                Does::Proves(after, more) => {
                    drop(wait(after).await);
                    turn.take().await;
                    drop(wait(more).await);
                    return Ok(number);
                }
                Does::Breaks(after, more) => {
                    drop(wait(after).await);
                    turn.take().await;
                    drop(wait(more).await);
                }
            }
            Err(number)
        }
    };
    let ended = first_of(rungs.len(), last, dial).await;
    (ended, millis(), log.into_inner().unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_best_that_works_is_the_only_one_that_is_asked() {
    let played = play(&[Does::Proves(100, 800), Does::Proves(1, 1)], None).await;
    assert_eq!(played, (Ok(0), 900, vec![(0, 0)]));
    let played = play(&[Does::Fails(10), Does::Fails(20)], None).await;
    assert_eq!(played, (Err(vec![0, 1]), 30, vec![(0, 0), (1, 10)]));
    let played = play(&[], None).await;
    assert_eq!(played, (Err(vec![]), 0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_silent_rung_holds_the_next_up_for_a_second() {
    let rungs = [Does::Hangs, Does::Hangs, Does::Proves(50, 50)];
    let begun = vec![(0, 0), (1, 1000), (2, 2000)];
    assert_eq!(play(&rungs, None).await, (Ok(2), 2100, begun));
    // One that connects may wait for an edge that has much to do.
    let rungs = [Does::Connects(500), Does::Proves(50, 50)];
    let begun = vec![(0, 0), (1, 4000)];
    assert_eq!(play(&rungs, None).await, (Ok(1), 4100, begun));
    // The former may still win.
    let rungs = [Does::Proves(1500, 10), Does::Proves(2000, 10)];
    assert_eq!(play(&rungs, None).await.0, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn one_alone_says_who_it_is_and_the_others_come_after_it() {
    // The second is proved to first, and takes long for the rest.
    let rungs = [Does::Proves(1200, 1), Does::Proves(100, 60_000)];
    let begun = vec![(0, 0), (1, 1000)];
    assert_eq!(play(&rungs, None).await, (Ok(1), 61_100, begun));
    let rungs = [Does::Proves(1200, 1), Does::Breaks(100, 5000), Does::Hangs];
    let (ended, at, begun) = play(&rungs, None).await;
    assert_eq!((ended, at), (Ok(0), 6100 + 1201));
    assert_eq!(begun, [(0, 0), (1, 1000), (0, 6100), (2, 7100)]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_doubted_waits_for_all_others_to_fail() {
    let rungs = [Does::Fails(3000), Does::Fails(5000), Does::Proves(1, 1)];
    let begun = vec![(0, 0), (1, 1000), (2, 6000)];
    assert_eq!(play(&rungs, Some(2)).await, (Ok(2), 6002, begun));
    assert_eq!(play(&[Does::Proves(1, 1)], Some(0)).await.0, Ok(0));
}
