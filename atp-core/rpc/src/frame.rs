//! Messages on the wire: a length that counts itself, six words, a payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;
use tokio_util::codec::{Decoder, Encoder};

use crate::numbers::{Kind, Procedure, Program, Status};

/// Bytes of the length and the header.
pub const HEADER: usize = 28;

/// The longest message that libvirt accepts, bytes, its length included.
pub const MAX_MESSAGE: usize = 32 * 1024 * 1024 + 4;

/// The longest payload, bytes.
pub const MAX_PAYLOAD: usize = MAX_MESSAGE - HEADER;

/// The longest piece of a stream, bytes (`VIR_NET_MESSAGE_LEGACY_PAYLOAD_MAX`).
pub const MAX_CHUNK: usize = 262_120;

/// The version that both programs have had since they exist.
const VERSION: u32 = 1;

/// How much room is made at once for a message that is still to come, bytes: its length is only a claim.
const READ_AHEAD: usize = 64 * 1024;

/// Payloads of messages up to this length are copied, bytes: a short one does not hold on to the whole of what was read
/// with it, and the buffer stays of one piece and is used again.
const COPIED: usize = 16 * 1024;

/// How much is kept of what is no message, bytes.
const KEPT: usize = 64;

/// The head of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The program.
    pub program: Program,
    /// The number of the procedure, or of the event.
    pub procedure: i32,
    /// What kind of message it is.
    pub kind: Kind,
    /// The number that a reply has in common with its call, and a piece of a stream with the call that opened it.
    pub serial: u32,
    /// How it went.
    pub status: Status,
}

impl Header {
    /// The head of a call.
    pub fn call(procedure: Procedure, serial: u32) -> Self {
        Header {
            program: procedure.program,
            procedure: procedure.number,
            kind: Kind::Call,
            serial,
            status: Status::Ok,
        }
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its head.
    pub header: Header,
    /// Its payload: XDR, or a stream's bytes as they are.
    pub payload: Bytes,
}

/// Why bytes are no message. The connection cannot go on after one.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The length is none that a message has: the peer speaks something else, or has lost its place.
    #[error("a message of {length} bytes, where {HEADER} to {MAX_MESSAGE} are allowed")]
    Length {
        /// The length it claims.
        length: u32,
        /// The first bytes that came, the length included.
        begins: Bytes,
    },
    /// The version is none we know.
    #[error("a message of version {0} of the protocol, where 1 is known")]
    Version(u32),
    /// The status has no meaning.
    #[error("a message of the unknown status {0}")]
    Status(u32),
    /// A daemon sends no message of this kind, unless asked for it.
    #[error("a message of the unexpected kind {0}")]
    Kind(u32),
    /// The peer closed the connection inside a message.
    #[error("the connection ended inside a message, after {0} bytes of it")]
    Cut(usize),
    /// Sending or receiving failed.
    #[error("reading or writing failed")]
    Io(#[from] std::io::Error),
}

/// Cuts bytes into messages, and joins them.
#[derive(Debug, Default)]
pub struct FrameCodec {}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(claim) = bytes.first_chunk() else { return Ok(None) };
        let claim = u32::from_be_bytes(*claim);
        let length = claim as usize;
        if !(HEADER..=MAX_MESSAGE).contains(&length) {
            let begins = Bytes::copy_from_slice(&bytes[..bytes.len().min(KEPT)]);
            return Err(FrameError::Length { length: claim, begins });
        }
        if bytes.len() < length {
            bytes.reserve((length - bytes.len()).min(READ_AHEAD));
            return Ok(None);
        }
        let mut head = &bytes[4..HEADER];
        let program = Program(head.get_u32());
        let version = head.get_u32();
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let procedure = head.get_i32();
        let kind = Kind::from_wire(head.get_u32());
        let serial = head.get_u32();
        let status = head.get_u32();
        let status = Status::from_wire(status).ok_or(FrameError::Status(status))?;
        let payload = if length <= COPIED {
            let payload = Bytes::copy_from_slice(&bytes[HEADER..length]);
            bytes.advance(length);
            payload
        } else {
            bytes.split_to(length).freeze().slice(HEADER..)
        };
        Ok(Some(Frame { header: Header { program, procedure, kind, serial, status }, payload }))
    }

    fn decode_eof(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        match self.decode(bytes)? {
            None if !bytes.is_empty() => Err(FrameError::Cut(bytes.len())),
            frame => Ok(frame),
        }
    }
}

impl Encoder<(Header, &[u8])> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, (header, payload): (Header, &[u8]), to: &mut BytesMut) -> Result<(), FrameError> {
        let length = HEADER.saturating_add(payload.len());
        if length > MAX_MESSAGE {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            return Err(FrameError::Length { length, begins: Bytes::new() });
        }
        to.reserve(length);
        to.put_u32(length as u32);
        to.put_u32(header.program.0);
        to.put_u32(VERSION);
        to.put_i32(header.procedure);
        to.put_u32(header.kind.to_wire());
        to.put_u32(header.serial);
        to.put_u32(header.status.to_wire());
        to.put_slice(payload);
        Ok(())
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, to: &mut BytesMut) -> Result<(), FrameError> {
        self.encode((frame.header, &frame.payload[..]), to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::numbers::procedure;

    fn bytes(frame: &Frame) -> BytesMut {
        let mut bytes = BytesMut::new();
        FrameCodec::default().encode(frame.clone(), &mut bytes).unwrap();
        bytes
    }

    fn frame(payload: Vec<u8>, kind: u32, serial: u32) -> Frame {
        let header = Header { kind: Kind::from_wire(kind), ..Header::call(procedure::AUTH_LIST, serial) };
        Frame { header, payload: payload.into() }
    }

    #[test]
    fn a_call_is_laid_out_as_libvirt_expects() {
        let bytes = bytes(&frame(vec![9, 8, 7, 6], 0, 5));
        let expected = [32, 0x2000_8086, 1, 66, 0, 5, 0, 0x0908_0706];
        assert_eq!(bytes.chunks(4).map(|mut word| word.get_u32()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn lengths_out_of_range_are_refused_at_once() {
        for length in [0, HEADER as u32 - 1, MAX_MESSAGE as u32 + 1, u32::from_be_bytes(*b"HTTP")] {
            let mut bytes = BytesMut::from(&length.to_be_bytes()[..]);
            let error = FrameCodec::default().decode(&mut bytes).unwrap_err();
            assert!(matches!(error, FrameError::Length { length: found, .. } if found == length), "{error}");
        }
    }

    #[test]
    fn a_claim_allocates_little() {
        let mut bytes = BytesMut::from(&(MAX_MESSAGE as u32).to_be_bytes()[..]);
        assert!(FrameCodec::default().decode(&mut bytes).unwrap().is_none());
        assert!(bytes.capacity() < 4 * READ_AHEAD, "{}", bytes.capacity());
    }

    #[test]
    fn an_end_inside_a_message_is_an_error() {
        let mut cut = bytes(&frame(vec![0; 8], 1, 1));
        cut.truncate(30);
        assert!(matches!(FrameCodec::default().decode_eof(&mut cut), Err(FrameError::Cut(30))));
    }

    #[test]
    fn too_long_a_payload_is_not_sent() {
        let mut bytes = BytesMut::new();
        let payload = vec![0; MAX_PAYLOAD + 1];
        let header = Header::call(procedure::AUTH_LIST, 1);
        assert!(FrameCodec::default().encode((header, &payload[..]), &mut bytes).is_err());
        assert!(bytes.is_empty());
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            frames in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 0..60), 0u32..7, any::<u32>())
                    .prop_map(|(payload, kind, serial)| frame(payload, kind, serial)),
                1..6,
            ),
            step in 1usize..50,
        ) {
            let wire: Vec<u8> = frames.iter().flat_map(|frame| bytes(frame).to_vec()).collect();
            let (mut codec, mut buffer, mut seen) = (FrameCodec::default(), BytesMut::new(), Vec::new());
            for piece in wire.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = codec.decode(&mut buffer).unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = FrameCodec::default().decode_eof(&mut buffer) {}
        }
    }
}
