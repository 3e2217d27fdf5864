//! The PIN: what it is now, who proved it, who tried too often.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Instant;

use adit_link_proto::{PinGate, PinLimits, PinPermit};
use adit_model::{Pin, PublicKey};
use tokio::sync::watch;

use super::policy::PinCheck;
use adit_link::entropy::random;

/// What a try of the PIN leads to besides its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tried {
    pub(super) check: PinCheck,
    /// The address is to be banned.
    pub(super) ban: bool,
}

#[derive(Debug)]
pub(super) struct PinDesk {
    /// `None`: no PIN is asked for, or none could be made; then none is right.
    pin: watch::Sender<Option<Pin>>,
    gate: PinGate,
    /// Identities that proved a PIN since the start.
    proved: HashSet<PublicKey>,
    is_on: bool,
}

impl PinDesk {
    pub(super) fn new(mut limits: PinLimits, is_on: bool) -> Self {
        if limits.per_address == 0 {
            limits.per_address = u32::MAX;
        }
        let mut desk = Self {
            pin: watch::Sender::new(None),
            gate: PinGate::new(limits),
            proved: HashSet::new(),
            is_on,
        };
        desk.renew();
        desk
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<Pin>> {
        self.pin.subscribe()
    }

    pub(super) fn current(&self) -> Option<Pin> {
        self.pin.borrow().clone()
    }

    /// Judges a try: `matches` tells whether it was made from a PIN. A PIN that
    /// enrols somebody is used up by it.
    pub(super) fn try_pin(
        &mut self,
        matches: impl FnOnce(&Pin) -> bool,
        enrols: bool,
        from: IpAddr,
        is_exempt: bool,
        now: Instant,
    ) -> Tried {
        let is_right = self.pin.borrow().as_ref().is_some_and(matches);
        let (mut ban, mut renew) = (false, false);
        let check = match (self.gate.permit(from, now), is_right) {
            (PinPermit::Banned | PinPermit::TryLater, _) => PinCheck::Later,
            (PinPermit::Go, true) => {
                renew = enrols;
                PinCheck::Right
            }
            (PinPermit::Go, false) => {
                let outcome = self.gate.wrong(from, now);
                (ban, renew) = (outcome.ban && !is_exempt, outcome.rotate);
                PinCheck::Wrong
            }
        };
        if check == PinCheck::Right || is_exempt {
            self.gate.forgive(from);
        }
        if renew {
            self.renew();
        }
        Tried { check, ban }
    }

    pub(super) fn has_proved(&self, identity: &PublicKey) -> bool {
        self.proved.contains(identity)
    }

    pub(super) fn note_proved(&mut self, identity: PublicKey) {
        self.proved.insert(identity);
    }

    pub(super) fn forget(&mut self, identity: &PublicKey) {
        self.proved.remove(identity);
    }

    /// Changes the PIN when its time has come.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.gate.rotate_at().is_some_and(|at| at <= now) {
            self.renew();
        }
    }

    fn renew(&mut self) {
        self.gate.rotated();
        let pin = if self.is_on { make_pin() } else { None };
        self.pin.send_replace(pin);
    }
}

fn make_pin() -> Option<Pin> {
    let bytes = random::<24>()
        .inspect_err(|error| tracing::error!(%error, "no PIN could be made: nobody can enrol"))
        .ok()?;
    let (words, _) = bytes.as_chunks::<4>();
    let word = |at: usize| u32::from_be_bytes(words[at]);
    Some(Pin::from_random(std::array::from_fn(word)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn desk() -> PinDesk {
        PinDesk::new(PinLimits::default(), true)
    }

    fn attempt(desk: &mut PinDesk, pin: Option<&Pin>, from: IpAddr, now: Instant) -> Tried {
        desk.try_pin(|p| Some(p) == pin, true, from, from.is_loopback(), now)
    }

    #[test]
    fn a_pin_enrols_one_and_changes() {
        let (mut desk, now) = (desk(), Instant::now());
        let pin = desk.current();
        let mut watch = desk.watch();
        watch.mark_unchanged();
        let right = attempt(&mut desk, pin.as_ref(), ip(1), now);
        assert_eq!(right.check, PinCheck::Right);
        assert!(watch.has_changed().unwrap());
        assert_ne!(desk.current(), pin);
        let again = attempt(&mut desk, pin.as_ref(), ip(2), now);
        assert_eq!(again.check, PinCheck::Wrong);
        // Somebody who was enrolled before leaves it as it is.
        let pin = desk.current();
        let kept = desk.try_pin(|p| Some(p) == pin.as_ref(), false, ip(1), false, now);
        assert_eq!((kept.check, desk.current()), (PinCheck::Right, pin));
    }

    #[test]
    fn five_wrong_pins_ban_and_a_right_one_is_late_then() {
        let (mut desk, now) = (desk(), Instant::now());
        for n in 1..=5 {
            let tried = attempt(&mut desk, None, ip(1), now);
            assert_eq!((tried.check, tried.ban), (PinCheck::Wrong, n == 5));
        }
        let pin = desk.current();
        let late = attempt(&mut desk, pin.as_ref(), ip(1), now);
        assert_eq!(late.check, PinCheck::Later);
        let other = attempt(&mut desk, pin.as_ref(), ip(2), now);
        assert_eq!(other.check, PinCheck::Right);
    }

    #[test]
    fn loopback_is_never_banned_and_has_the_common_budget() {
        let (mut desk, now) = (desk(), Instant::now());
        let home = IpAddr::from([127, 0, 0, 1]);
        let budget = PinLimits::default().budget;
        for _ in 0..budget {
            let tried = attempt(&mut desk, None, home, now);
            assert_eq!((tried.check, tried.ban), (PinCheck::Wrong, false));
        }
        let tried = attempt(&mut desk, None, home, now);
        assert_eq!(tried.check, PinCheck::Later);
        let later = now + Duration::from_secs(60);
        let pin = desk.current();
        let tried = attempt(&mut desk, pin.as_ref(), home, later);
        assert_eq!(tried.check, PinCheck::Right);
    }

    #[test]
    fn no_wrong_pins_before_a_ban_means_no_ban() {
        let limits = PinLimits {
            per_address: 0,
            ..PinLimits::default()
        };
        let (mut desk, now) = (PinDesk::new(limits, true), Instant::now());
        for _ in 0..20 {
            let tried = attempt(&mut desk, None, ip(1), now);
            assert_eq!((tried.check, tried.ban), (PinCheck::Wrong, false));
        }
    }

    #[test]
    fn tries_do_not_add_up_over_time() {
        let (mut desk, now) = (desk(), Instant::now());
        let pin = desk.current();
        attempt(&mut desk, None, ip(1), now);
        desk.tick(now + Duration::from_secs(599));
        assert_eq!(desk.current(), pin);
        desk.tick(now + Duration::from_secs(600));
        assert_ne!(desk.current(), pin);
    }

    #[test]
    fn without_a_pin_none_is_right() {
        let mut desk = PinDesk::new(PinLimits::default(), false);
        assert_eq!(desk.current(), None);
        let tried = desk.try_pin(|_| true, true, ip(1), false, Instant::now());
        assert_eq!(tried.check, PinCheck::Wrong);
    }
}
