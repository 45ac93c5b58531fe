//! The errors of this crate as plain data.

use atp_api::{LibvirtCode, OutcomeError};

use super::ProtocolError;

impl From<&ProtocolError> for OutcomeError {
    fn from(error: &ProtocolError) -> Self {
        OutcomeError {
            hint: Some(error.hint()),
            retryable: error.is_retryable(),
            libvirt: error.libvirt().map(LibvirtCode::from),
            ..OutcomeError::of(error.kind(), error)
        }
    }
}
