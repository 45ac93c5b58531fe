//! libvirt's wire protocol in async Rust, without the C library.
#![forbid(unsafe_code)]

pub mod error;
pub mod frame;
pub mod message;
pub mod numbers;
pub mod xdr;
