//! Where the PIN of a dial comes from.

use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use adit_link::agent::PinSource;
use adit_model::Pin;

use crate::settings::PinFrom;

/// Wrong PINs a person may type before the agent ends; an edge bans an address
/// after five.
const TRIES: u32 = 3;

/// Remembers what a person typed until the edge has judged it: people are
/// slower than an edge waits, and are not asked twice for that.
pub(crate) struct Pins {
    from: PinFrom,
    state: Arc<State>,
    refused: u32,
}

#[derive(Default)]
struct State {
    typed: Mutex<Option<Pin>>,
    asking: AtomicBool,
    wanted: AtomicBool,
}

impl State {
    fn typed(&self) -> std::sync::MutexGuard<'_, Option<Pin>> {
        self.typed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pins {
    pub(crate) fn new(from: PinFrom) -> Self {
        Self {
            from,
            state: Arc::default(),
            refused: 0,
        }
    }

    /// For the next dial.
    pub(crate) fn source(&self) -> Option<PinSource> {
        self.state.wanted.store(false, Ordering::Relaxed);
        match &self.from {
            PinFrom::Nowhere => None,
            PinFrom::Fixed(pin) => {
                let pin = pin.clone();
                Some(Arc::new(move || Box::pin(ready(Some(pin.clone())))))
            }
            PinFrom::Asked(ask) => {
                let (ask, state) = (Arc::clone(ask), Arc::clone(&self.state));
                Some(Arc::new(move || {
                    let (ask, state) = (Arc::clone(&ask), Arc::clone(&state));
                    Box::pin(async move {
                        state.wanted.store(true, Ordering::Relaxed);
                        if let Some(pin) = state.typed().clone() {
                            return Some(pin);
                        }
                        state.asking.store(true, Ordering::Relaxed);
                        let pin = ask().await;
                        state.asking.store(false, Ordering::Relaxed);
                        state.typed().clone_from(&pin);
                        pin
                    })
                }))
            }
        }
    }

    /// A person is being asked: do not disturb.
    pub(crate) fn is_asking(&self) -> bool {
        self.state.asking.load(Ordering::Relaxed)
    }

    /// Whether something was typed that the edge has not judged.
    pub(crate) fn is_unjudged(&self) -> bool {
        self.state.typed().is_some()
    }

    pub(crate) fn accepted(&mut self) {
        *self.state.typed() = None;
        self.refused = 0;
    }

    /// After a refusal: whether to ask again.
    pub(crate) fn ask_again(&mut self) -> bool {
        let was_typed = self.state.typed().take().is_some();
        let was_wanted = self.state.wanted.load(Ordering::Relaxed);
        self.refused += 1;
        was_typed && was_wanted && self.refused < TRIES
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn pin(n: u32) -> Pin {
        Pin::from_random([n; 6])
    }

    #[tokio::test]
    async fn a_person_is_asked_again_only_for_a_wrong_pin() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let mut pins = Pins::new(PinFrom::Asked(Arc::new(move || {
            let n = count.fetch_add(1, Ordering::Relaxed);
            Box::pin(ready(Some(pin(n as u32))))
        })));
        let ask = async |pins: &Pins| pins.source().unwrap()().await;
        assert_eq!(ask(&pins).await, Some(pin(0)));
        assert!(pins.is_unjudged());
        assert_eq!(ask(&pins).await, Some(pin(0)), "the edge was too fast");
        assert!(pins.ask_again());
        assert_eq!(ask(&pins).await, Some(pin(1)));
        assert!(pins.ask_again());
        assert_eq!(ask(&pins).await, Some(pin(2)));
        assert!(!pins.ask_again(), "three wrong ones are enough");

        assert_eq!(ask(&pins).await, Some(pin(3)));
        pins.accepted();
        assert!(!pins.is_unjudged());
        drop(pins.source());
        assert!(!pins.ask_again(), "refused without having been asked");
    }

    #[tokio::test]
    async fn a_fixed_pin_is_never_tried_twice() {
        let mut pins = Pins::new(PinFrom::Fixed(pin(1)));
        assert_eq!(pins.source().unwrap()().await, Some(pin(1)));
        assert!(!pins.ask_again());
        assert!(Pins::new(PinFrom::Nowhere).source().is_none());
    }
}
