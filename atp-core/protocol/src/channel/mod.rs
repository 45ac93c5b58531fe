//! Messages to and from a program in the guest, over a virtio-serial channel.
//!
//! A channel carries bytes ([`atp_transport::DomainChannel`], or the socket of a QEMU that libvirt does not own);
//! [`FrameCodec`] cuts them into messages. [`ChannelClient`] asks a program in the guest questions and brings the
//! answers back, and opens the channel again when it was lost.

mod client;
mod codec;

pub use client::{ChannelClient, ChannelClientOptions, ChannelRequestError};
pub use codec::{FrameCodec, FrameError};
