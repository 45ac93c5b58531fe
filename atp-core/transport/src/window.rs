//! What happened within the last while, counted.

use std::time::Duration;

use tokio::time::Instant;

/// A window moves on by this part of itself at a time.
const SLICES: u64 = 10;

/// Tally of two kinds over a window that moves on with time.
#[derive(Default)]
pub(crate) struct Window {
    origin: Option<Instant>,
    span: Duration,
    slices: [Slice; SLICES as usize],
}

/// What happened in one slice of time.
#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    /// Which slice since the origin.
    number: u64,
    tally: Tally,
}

/// How often something happened, and how often it was of the kind that is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) all: u64,
    pub(crate) marked: u64,
}

impl Window {
    /// Tally what happens now. A window of another length than before starts anew.
    pub(crate) fn add(&mut self, span: Duration, now: Instant, tally: Tally) {
        if self.span != span {
            *self = Window { span, ..Window::default() };
        }
        let number = self.slice_number(now);
        let slice = &mut self.slices[(number % SLICES) as usize];
        if slice.number != number {
            *slice = Slice { number, tally: Tally::default() };
        }
        slice.tally.all += tally.all;
        slice.tally.marked += tally.marked;
    }

    /// What happened within the window that ends now.
    pub(crate) fn counts(&mut self, now: Instant) -> Tally {
        let current = self.slice_number(now);
        let recent = self.slices.iter().filter(|slice| slice.number + SLICES > current);
        recent.fold(Tally::default(), |sum, Slice { tally, .. }| Tally {
            all: sum.all + tally.all,
            marked: sum.marked + tally.marked,
        })
    }

    fn slice_number(&mut self, now: Instant) -> u64 {
        let origin = *self.origin.get_or_insert(now);
        let length = (self.span / SLICES as u32).as_nanos().max(1);
        // Numbers start at one window, so that the slices that were never written lie before it.
        SLICES
            + u64::try_from(now.saturating_duration_since(origin).as_nanos() / length).unwrap_or(u64::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(10);
    const ONE: Tally = Tally { all: 1, marked: 0 };

    #[test]
    fn what_is_older_than_the_window_is_forgotten_bit_by_bit() {
        let (mut window, start) = (Window::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        window.add(SPAN, after(0), Tally { all: 1, marked: 1 });
        window.add(SPAN, after(5), ONE);
        assert_eq!(window.counts(after(9)), Tally { all: 2, marked: 1 });
        assert_eq!(window.counts(after(10)), ONE);
        assert_eq!(window.counts(after(15)), Tally::default());
        window.add(SPAN, after(60), ONE);
        assert_eq!(window.counts(after(60)), ONE);
    }

    #[test]
    fn a_window_of_another_length_starts_anew() {
        let (mut window, now) = (Window::default(), Instant::now());
        window.add(SPAN, now, ONE);
        window.add(2 * SPAN, now, ONE);
        assert_eq!(window.counts(now), ONE);
    }
}
