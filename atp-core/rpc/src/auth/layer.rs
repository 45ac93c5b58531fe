//! SASL's security layer: once a mechanism has agreed on one, each direction is cut into pieces that are encrypted, with
//! the length of each before it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use libgssapi::context::{ClientCtx, SecurityContext};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// The longest piece that we take, bytes.
pub(super) const MOST: usize = 64 * 1024;

/// What encryption may add to a piece, bytes: some 60 in fact.
const OVERHEAD: usize = 256;

/// Bytes of a length.
const LENGTH: usize = 4;

/// What encrypts and decrypts.
pub(super) struct Layer {
    context: ClientCtx,
    /// The longest piece that is encrypted, bytes.
    most: usize,
}

impl Layer {
    /// With a daemon that takes pieces of this size.
    pub(super) fn new(context: ClientCtx, size: usize) -> Self {
        Layer { context, most: size.clamp(2 * OVERHEAD, MOST) - OVERHEAD }
    }
}

/// Where a layer is put when it is agreed on. Before that, everything passes as it is.
#[derive(Clone, Default)]
pub(crate) struct LayerSlot(Arc<Mutex<Option<Layer>>>);

impl LayerSlot {
    pub(super) fn set(&self, layer: Layer) {
        *self.0.lock() = Some(layer);
    }

    /// Whether there is a layer.
    pub(crate) fn is_set(&self) -> bool {
        self.0.lock().is_some()
    }
}

/// A byte stream, below a layer once there is one.
pub(crate) struct Layered<S> {
    io: S,
    slot: LayerSlot,
    /// Encrypted, as it came.
    incoming: BytesMut,
    /// Decrypted, to be taken.
    plain: BytesMut,
    /// Encrypted, to be written.
    outgoing: BytesMut,
}

impl<S> Layered<S> {
    pub(crate) fn new(io: S, slot: LayerSlot) -> Self {
        Layered { io, slot, incoming: BytesMut::new(), plain: BytesMut::new(), outgoing: BytesMut::new() }
    }
}

impl<S: AsyncWrite + Unpin> Layered<S> {
    /// Writes what is encrypted.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.outgoing))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Layered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.plain.is_empty() {
                let count = this.plain.len().min(to.remaining());
                to.put_slice(&this.plain.split_to(count));
                return Poll::Ready(Ok(()));
            }
            if let Some(layer) = &mut *this.slot.0.lock() {
                if let Some(piece) = take_piece(&mut this.incoming)? {
                    let plain = layer.context.unwrap(&piece).map_err(io::Error::other)?;
                    this.plain.extend_from_slice(&plain);
                    continue;
                }
            } else {
                return Pin::new(&mut this.io).poll_read(cx, to);
            }
            this.incoming.reserve(LENGTH);
            if ready!(poll_read_buf(Pin::new(&mut this.io), cx, &mut this.incoming))? == 0 {
                let cut = !this.incoming.is_empty();
                return Poll::Ready(if cut { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) });
            }
        }
    }
}

/// The next whole piece.
fn take_piece(incoming: &mut BytesMut) -> io::Result<Option<BytesMut>> {
    let Some(length) = incoming.first_chunk().copied().map(u32::from_be_bytes) else { return Ok(None) };
    let length = length as usize;
    if length > MOST {
        return Err(io::Error::other(format!(
            "an encrypted piece of {length} bytes, where {MOST} are allowed"
        )));
    }
    if incoming.len() < LENGTH + length {
        incoming.reserve(LENGTH + length - incoming.len());
        return Ok(None);
    }
    incoming.advance(LENGTH);
    Ok(Some(incoming.split_to(length)))
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Layered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        let mut slot = this.slot.0.lock();
        let Some(layer) = &mut *slot else { return Pin::new(&mut this.io).poll_write(cx, bytes) };
        let count = bytes.len().min(layer.most);
        let piece = layer.context.wrap(true, &bytes[..count]).map_err(io::Error::other)?;
        // It is bounded by what was encrypted.
        this.outgoing.put_u32(piece.len() as u32);
        this.outgoing.put_slice(&piece);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_bounded_and_whole() {
        let mut bytes = BytesMut::from(&[0, 0, 0, 3, 1, 2][..]);
        assert!(take_piece(&mut bytes).unwrap().is_none());
        bytes.put_slice(&[3, 0]);
        assert_eq!(take_piece(&mut bytes).unwrap().unwrap()[..], [1, 2, 3]);
        assert!(take_piece(&mut bytes).unwrap().is_none());
        let mut long = BytesMut::from(&(MOST as u32 + 1).to_be_bytes()[..]);
        assert!(take_piece(&mut long).is_err());
    }
}
