//! Values that Python reads as JSON.

use atp_api::OutcomeError;
use serde::Serialize;

use crate::error;

/// A value as JSON.
pub(crate) fn text(item: &impl Serialize) -> Result<String, OutcomeError> {
    serde_json::to_string(item).map_err(|error| error::invalid(error.to_string()))
}
