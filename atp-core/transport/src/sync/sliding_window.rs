//! What happened within the last while, counted.

use std::time::Duration;

use tokio::time::Instant;

/// A window moves on by this part of itself at a time.
const SLICES: u64 = 10;

/// Tally of two kinds over a window that moves on with time.
#[derive(Default)]
pub(crate) struct SlidingWindow {
    origin: Option<Instant>,
    span: Duration,
    slices: [Slice; SLICES as usize],
}

/// What happened in one slice of time.
#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    /// Which slice since the origin.
    number: u64,
    counts: WindowCounts,
}

/// How often something happened, and how often it was of the kind that is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WindowCounts {
    pub(crate) all: u64,
    pub(crate) marked: u64,
}

impl SlidingWindow {
    /// Tally what happens now. A window of another length than before starts anew.
    pub(crate) fn add(&mut self, span: Duration, now: Instant, counts: WindowCounts) {
        if self.span != span {
            *self = SlidingWindow { span, ..SlidingWindow::default() };
        }
        let number = self.slice_number(now);
        let slice = &mut self.slices[(number % SLICES) as usize];
        if slice.number != number {
            *slice = Slice { number, counts: WindowCounts::default() };
        }
        slice.counts.all += counts.all;
        slice.counts.marked += counts.marked;
    }

    /// What happened within the window that ends now.
    pub(crate) fn counts(&mut self, now: Instant) -> WindowCounts {
        let current = self.slice_number(now);
        let recent = self.slices.iter().filter(|slice| slice.number + SLICES > current);
        recent.fold(WindowCounts::default(), |sum, Slice { counts, .. }| WindowCounts {
            all: sum.all + counts.all,
            marked: sum.marked + counts.marked,
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
    const ONE: WindowCounts = WindowCounts { all: 1, marked: 0 };

    #[test]
    fn what_is_older_than_the_window_is_forgotten_bit_by_bit() {
        let (mut window, start) = (SlidingWindow::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        window.add(SPAN, after(0), WindowCounts { all: 1, marked: 1 });
        window.add(SPAN, after(5), ONE);
        assert_eq!(window.counts(after(9)), WindowCounts { all: 2, marked: 1 });
        assert_eq!(window.counts(after(10)), ONE);
        assert_eq!(window.counts(after(15)), WindowCounts::default());
        window.add(SPAN, after(60), ONE);
        assert_eq!(window.counts(after(60)), ONE);
    }

    #[test]
    fn a_window_of_another_length_starts_anew() {
        let (mut window, now) = (SlidingWindow::default(), Instant::now());
        window.add(SPAN, now, ONE);
        window.add(2 * SPAN, now, ONE);
        assert_eq!(window.counts(now), ONE);
    }
}
