//! Pictures of screens, and lines into the guest: what comes as a [`Stream`].

use crate::connection::Connection;
use crate::error::CallError;
use crate::link::Stream;
use crate::message::RemoteDomain;
use crate::numbers::procedure;

/// Flags for a console (`virDomainConsoleFlags`).
pub mod console {
    /// Takes it from the client that has it.
    pub const FORCE: u32 = 1;
    /// Fails if someone has it.
    pub const SAFE: u32 = 2;
}

/// Flags for a channel (`virDomainChannelFlags`).
pub mod channel {
    /// Takes it from the client that has it.
    pub const FORCE: u32 = 1;
}

type Called<T> = Result<T, CallError>;

impl Connection {
    /// A picture of a domain's screen, counted from 0 (`virDomainScreenshot`): its form, as a MIME type, and the
    /// stream that it comes by. A picture is some 1 to 30 MB; more than `buffer` bytes that are not taken abort it.
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub async fn screenshot(
        &self,
        domain: &RemoteDomain,
        screen: u32,
        buffer: usize,
    ) -> Called<(Option<String>, Stream)> {
        let arguments = (domain, screen, 0u32);
        self.call_stream(procedure::DOMAIN_SCREENSHOT, &arguments, buffer).await
    }

    /// Opens a domain's console, by its alias or the first, by [flags](console) (`virDomainOpenConsole`). More than
    /// `buffer` bytes that are not taken abort it.
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub async fn open_console(
        &self,
        domain: &RemoteDomain,
        device: Option<&str>,
        flags: u32,
        buffer: usize,
    ) -> Called<Stream> {
        let arguments = (domain, device, flags);
        let ((), stream) = self.call_stream(procedure::DOMAIN_OPEN_CONSOLE, &arguments, buffer).await?;
        Ok(stream)
    }

    /// Opens a channel of a domain, by its name or the first, by [flags](channel) (`virDomainOpenChannel`). More than
    /// `buffer` bytes that are not taken abort it.
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub async fn open_channel(
        &self,
        domain: &RemoteDomain,
        name: Option<&str>,
        flags: u32,
        buffer: usize,
    ) -> Called<Stream> {
        let arguments = (domain, name, flags);
        let ((), stream) = self.call_stream(procedure::DOMAIN_OPEN_CHANNEL, &arguments, buffer).await?;
        Ok(stream)
    }
}
