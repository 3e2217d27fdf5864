//! Where the PIN comes from: a value, a reference, or a person.

use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_agent::PinFrom;
use adit_config::SecretRef;
use adit_model::Pin;

use crate::view::Screen;
use crate::{settings, terminal};

/// Wrong forms that a person may type before the question is given up.
const TRIES: usize = 3;

/// The source of the PIN, asked for only when the edge wants one.
pub(crate) fn pin(configured: Option<SecretRef>, screen: &Arc<Screen>) -> PinFrom {
    let screen = Arc::clone(screen);
    match configured {
        Some(SecretRef::Literal(text)) => match Pin::parse(&text) {
            Ok(pin) => PinFrom::Fixed(pin),
            // Checked with the configuration.
            Err(_) => PinFrom::Nowhere,
        },
        Some(reference) => PinFrom::Asked(Arc::new(move || {
            let (reference, screen) = (reference.clone(), Arc::clone(&screen));
            Box::pin(async move { looked_up(&reference, &screen) })
        })),
        None if terminal::can_ask() => {
            let again = Arc::new(AtomicBool::new(false));
            PinFrom::Asked(Arc::new(move || {
                let screen = Arc::clone(&screen);
                let again = again.swap(true, Ordering::Relaxed);
                Box::pin(async move {
                    let asked = tokio::task::spawn_blocking(move || asked(&screen, again));
                    asked.await.ok().flatten()
                })
            }))
        }
        None => PinFrom::Nowhere,
    }
}

/// Files of this size are read faster than another thread would start.
fn looked_up(reference: &SecretRef, screen: &Screen) -> Option<Pin> {
    let remarks = settings::Remarks::default();
    let text = reference.reveal(&settings::variable, &|path| remarks.read_secret(path));
    remarks.log();
    let pin = text.and_then(|text| Pin::parse(&text).map_err(|why| why.to_string()));
    match pin {
        Ok(pin) => Some(pin),
        Err(why) => {
            screen.say(&format!("the PIN ({reference:?}) cannot be used: {why}"));
            None
        }
    }
}

fn asked(screen: &Arc<Screen>, again: bool) -> Option<Pin> {
    let _quiet = screen.pause();
    if again {
        terminal::note(
            "The edge refused: perhaps that was not its PIN, which changes after each use.",
        );
    }
    for _ in 0..TRIES {
        terminal::ask("PIN of the edge (on its terminal, or adit server --print-pin): ");
        let mut line = String::new();
        match io::stdin().lock().read_line(&mut line) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return None,
        }
        match Pin::parse(&line) {
            Ok(pin) => return Some(pin),
            Err(why) => terminal::note(&why.to_string()),
        }
    }
    None
}
