//! Times on the wall, as text.

use std::time::{Duration, SystemTime};

/// A time as text.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    // Times before 1970 and after 9999, which only a clock that is wrong shows, cannot be written.
    let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let time = time.clamp(SystemTime::UNIX_EPOCH, latest);
    humantime::format_rfc3339_millis(time).to_string()
}
