//! libvirt's own errors.

/// An error as libvirt reported it (`virError`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (libvirt error {code}, domain {domain})")]
pub struct LibvirtError {
    /// `virErrorNumber`.
    pub code: u32,
    /// `virErrorDomain`: the part of libvirt that raised it.
    pub domain: u32,
    /// `virErrorLevel`: 1 is a warning, 2 an error.
    pub level: u32,
    /// libvirt's words.
    pub message: String,
}
