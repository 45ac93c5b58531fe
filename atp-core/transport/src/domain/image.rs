//! Pictures of a domain's screen.

/// A picture as libvirt gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawImage {
    /// Its form: `image/png` or `image/x-portable-pixmap`, by the hypervisor's choice.
    pub mime: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether these are all of them.
    pub complete: bool,
}
