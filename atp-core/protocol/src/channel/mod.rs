//! Messages to and from a program in the guest, over a virtio-serial channel. Feature `channels`.
//!
//! A channel carries bytes ([`atp_transport::DomainChannel`], or the socket of a QEMU that libvirt does not own).
//! [`FrameCodec`] splits them into messages. [`ChannelClient`] sends requests to a program in the guest and returns the
//! answers. It opens the channel again after a loss.

mod client;
mod codec;

pub use client::{ChannelClient, ChannelClientOptions, ChannelRequestError};
pub use codec::{FrameCodec, FrameError};
