//! Durations as people write them.

use std::time::Duration;

/// The longest duration that is accepted. The clock can represent later instants, so a deadline can be computed from any of
/// them.
pub const LONGEST: Duration = Duration::from_secs(100 * YEAR);

/// A year as it is read: of 365.25 days, in seconds.
const YEAR: u64 = 31_557_600;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    /// The text cannot be parsed as a duration.
    #[error("expected a number with a unit, such as 30s, 2m or 500ms")]
    Unreadable,
    /// The duration is 0 where a longer one is needed.
    #[error("expected a duration longer than 0, such as 30s, 2m or 500ms")]
    Zero,
    /// The duration is longer than 100 years.
    #[error("expected a duration of at most 100 years")]
    TooLong,
}

/// Reads a duration such as `30s`, `2m` or `1h 30m`, of at most 100 years.
///
/// # Errors
/// The text is not a duration, or the duration is longer.
///
/// ```
/// # use std::time::Duration;
/// # use atp_settings::{DurationError, parse_duration};
/// assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
/// assert!(parse_duration("100y").is_ok());
/// assert_eq!(parse_duration("1000years"), Err(DurationError::TooLong));
/// ```
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) | Err(humantime::DurationError::NumberOverflow) => Err(DurationError::TooLong),
        Err(_) => Err(DurationError::Unreadable),
    }
}

/// Reads a duration like [`parse_duration`] that is longer than 0.
///
/// # Errors
/// The text is not a duration, or the duration is 0 or longer than 100 years.
pub fn parse_positive_duration(text: &str) -> Result<Duration, DurationError> {
    parse_duration(text).and_then(
        |duration| {
            if duration.is_zero() { Err(DurationError::Zero) } else { Ok(duration) }
        },
    )
}
