//! Times on the wall, as text, and how they pass.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The clock on the wall, which may be set while the service runs. Times that are shown are those of the clock. Ages are not
/// measured by it: if it is set forward by years, what was kept for days would be removed. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    began: (SystemTime, Instant),
}

impl Clock {
    /// The clock of the machine.
    pub fn system() -> Self {
        Clock::of(SystemTime::now)
    }

    /// A clock that shows what a function returns.
    pub fn of(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        let began = (now(), Instant::now());
        Clock { now: Arc::new(now), began }
    }

    /// What it shows.
    pub fn now(&self) -> SystemTime {
        (self.now)()
    }

    /// What it would show if it had not been set since the service began. Only for ages.
    pub(crate) fn steady(&self) -> SystemTime {
        let (then, at) = self.began;
        then.checked_add(at.elapsed()).unwrap_or(then)
    }

    /// By how much it was set since the service began: forward, or back.
    pub(crate) fn was_set(&self) -> Result<Duration, Duration> {
        self.now().duration_since(self.steady()).map_err(|back| back.duration())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("began", &self.began).finish_non_exhaustive()
    }
}

/// Milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// A time as text.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    // Times before 1970 and after 9999, which only a clock that is wrong shows, cannot be written.
    let latest = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let time = time.clamp(UNIX_EPOCH, latest);
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ages_are_those_without_the_jumps_of_the_clock() {
        let shown = Arc::new(Mutex::new(UNIX_EPOCH + Duration::from_secs(1_000_000)));
        let read = shown.clone();
        let clock = Clock::of(move || *read.lock());
        let began = clock.now();
        let hour = Duration::from_secs(3600);
        tokio::time::advance(hour).await;
        *shown.lock() += hour;
        assert_eq!((clock.steady(), clock.was_set()), (began + hour, Ok(Duration::ZERO)));
        *shown.lock() += 10 * hour;
        assert_eq!((clock.steady(), clock.was_set()), (began + hour, Ok(10 * hour)));
        *shown.lock() -= 12 * hour;
        assert_eq!((clock.steady(), clock.was_set()), (began + hour, Err(2 * hour)));
    }
}
