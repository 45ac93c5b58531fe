//! Durations in what is written for programs.

use std::time::Duration;

use serde::Serializer;

/// Writes a duration as seconds, with a fraction.
pub(crate) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
