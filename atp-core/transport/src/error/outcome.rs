//! The errors of this crate as plain data.

use atp_api::{LibvirtCode, OutcomeError};

use super::{LibvirtError, TransportError};

impl From<&LibvirtError> for LibvirtCode {
    fn from(error: &LibvirtError) -> Self {
        LibvirtCode { code: error.code, domain: error.domain }
    }
}

impl From<&TransportError> for OutcomeError {
    fn from(error: &TransportError) -> Self {
        OutcomeError {
            hint: Some(error.hint()),
            retryable: error.is_retryable(),
            libvirt: error.libvirt().map(LibvirtCode::from),
            ..OutcomeError::of(error.kind(), error)
        }
    }
}
