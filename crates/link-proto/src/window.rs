//! A sliding window of used numbers.

/// Width of the window.
pub const WINDOW: u64 = 4096;
const WORDS: usize = (WINDOW / 64) as usize;

/// Remembers which numbers were used. Parallel dials arrive out of order, so
/// any of the last [`WINDOW`] numbers may still come; older ones are refused.
#[derive(Debug, Clone)]
pub struct NumberWindow {
    /// One above the highest number seen.
    next: u64,
    /// Bit `n % WINDOW` of each number below `next`, within the window.
    bits: Box<[u64; WORDS]>,
    /// `u64::MAX` was used; `next` cannot say it.
    last: bool,
}

impl Default for NumberWindow {
    fn default() -> Self {
        Self {
            next: 0,
            bits: Box::new([0; WORDS]),
            last: false,
        }
    }
}

impl NumberWindow {
    /// Uses `number` up; false when it was used before or is too old to know.
    pub fn burn(&mut self, number: u64) -> bool {
        if number == u64::MAX {
            return !std::mem::replace(&mut self.last, true);
        }
        if number >= self.next {
            self.slide_to(number + 1);
        } else if self.next - number > WINDOW {
            return false;
        }
        let (word, bit) = ((number % WINDOW / 64) as usize, 1 << (number % 64));
        let used = self.bits[word] & bit != 0;
        self.bits[word] |= bit;
        !used
    }

    fn slide_to(&mut self, next: u64) {
        if next - self.next >= WINDOW {
            self.bits.fill(0);
        } else {
            for number in self.next..next {
                self.bits[(number % WINDOW / 64) as usize] &= !(1 << (number % 64));
            }
        }
        self.next = next;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};

    use super::*;

    #[test]
    fn numbers_work_once_and_old_ones_never() {
        let mut window = NumberWindow::default();
        assert!(window.burn(5));
        assert!(!window.burn(5));
        assert!(window.burn(0));
        assert!(window.burn(WINDOW));
        assert!(!window.burn(0));
        assert!(window.burn(1));
        assert!(window.burn(WINDOW + 1));
        assert!(!window.burn(1));
        assert!(window.burn(2));
        assert!(window.burn(u64::MAX - 1));
        assert!(window.burn(u64::MAX));
        assert!(!window.burn(u64::MAX));
        assert!(!window.burn(u64::MAX - 1));
        assert!(window.burn(u64::MAX - 2));
        assert!(!window.burn(7));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_like_a_set_within_the_window(
            steps in prop::collection::vec((0u64..9000, any::<bool>()), 1..400)
        ) {
            let (mut window, mut seen, mut base, mut top) =
                (NumberWindow::default(), HashSet::new(), 0u64, 0u64);
            for (offset, advance) in steps {
                if advance { base += offset / 8; }
                let number = base + offset;
                let expected = (number >= top || top - number <= WINDOW) && seen.insert(number);
                prop_assert!(window.burn(number) == expected, "{number} of {top}");
                top = top.max(number + 1);
            }
        }
    }
}
