//! `--hold`: how long a key or a button stays down.

use std::time::Duration;

use atp_settings::{DurationError, parse_duration};

use crate::context::Context;
use crate::problem::Problem;

/// Parses the value of `--hold`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(hold) if hold >= Duration::from_millis(1) => Ok(hold),
        Err(error @ DurationError::TooLong) => Err(error.to_string()),
        _ => Err("expected a duration of at least 1ms".to_owned()),
    }
}

/// Checks that a key is held for less time than its target has.
pub(crate) fn check(hold: Duration, context: &Context) -> Result<(), Problem> {
    let timeout = context.settings.policy.timeout;
    if hold < timeout {
        return Ok(());
    }
    let [hold, timeout] = [hold, timeout].map(humantime::format_duration);
    let problem =
        Problem::new(format!("--hold {hold} leaves no time within --timeout {timeout}; nothing was done"));
    Err(problem.hint("hold for less, or give more time (`--timeout`)"))
}
