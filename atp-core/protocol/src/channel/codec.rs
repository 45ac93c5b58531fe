//! Splits a stream of bytes into messages.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// The size of a length prefix, big-endian.
const LENGTH_BYTES: usize = 4;

/// Splits a stream into frames, and joins them; for [`tokio_util::codec::Framed`] and similar types.
///
/// After an error the rest of a stream is useless.
#[derive(Debug, Clone)]
pub struct FrameCodec {
    form: Form,
    max: usize,
    /// The number of bytes in the buffer that are known to contain no end of line.
    searched: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines,
    LengthPrefixed,
}

/// Why bytes are not valid frames, or a frame cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame is longer than the limit.
    #[error("a frame has {size} bytes or more, and the limit is {limit}")]
    TooLong {
        /// The known part of its length, bytes.
        size: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// A line has a line feed, or a carriage return at its end, which would both be lost.
    #[error("the frame must be one line, and has a line feed or ends in a carriage return")]
    LineFeed,
    /// The stream ended in the middle of a frame.
    #[error("the stream ended in the middle of a frame, after {size} bytes of it")]
    Truncated {
        /// The bytes received.
        size: usize,
    },
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl FrameCodec {
    /// One frame per line, as in newline-delimited JSON. A carriage return before the line feed is dropped, and so are
    /// empty lines: a peer may send one to synchronise.
    pub fn lines(max_frame_bytes: usize) -> Self {
        FrameCodec { form: Form::Lines, max: max_frame_bytes, searched: 0 }
    }

    /// Each frame after its length, four bytes big-endian.
    pub fn length_prefixed(max_frame_bytes: usize) -> Self {
        FrameCodec { form: Form::LengthPrefixed, max: max_frame_bytes, searched: 0 }
    }

    fn check(&self, size: usize) -> Result<(), FrameError> {
        if size > self.max { Err(FrameError::TooLong { size, limit: self.max }) } else { Ok(()) }
    }

    fn next_line(&mut self, bytes: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        loop {
            let Some(length) = bytes[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = bytes.len();
                // The last byte may be a carriage return, which does not count.
                self.check(bytes.strip_suffix(b"\r").unwrap_or(bytes).len())?;
                return Ok(None);
            };
            let mut line = bytes.split_to(self.searched + length);
            bytes.advance(1);
            self.searched = 0;
            if line.ends_with(b"\r") {
                line.truncate(line.len() - 1);
            }
            self.check(line.len())?;
            if !line.is_empty() {
                return Ok(Some(line.freeze()));
            }
        }
    }

    fn next_prefixed(&mut self, bytes: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        self.check(length)?;
        if rest.len() < length {
            bytes.reserve(LENGTH_BYTES + length - bytes.len());
            return Ok(None);
        }
        bytes.advance(LENGTH_BYTES);
        Ok(Some(bytes.split_to(length).freeze()))
    }
}

impl Decoder for FrameCodec {
    type Item = Bytes;
    type Error = FrameError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        match self.form {
            Form::Lines => self.next_line(bytes),
            Form::LengthPrefixed => self.next_prefixed(bytes),
        }
    }

    fn decode_eof(&mut self, bytes: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        match self.decode(bytes)? {
            None if !bytes.is_empty() => Err(FrameError::Truncated { size: bytes.len() }),
            frame => Ok(frame),
        }
    }
}

impl Encoder<&[u8]> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: &[u8], bytes: &mut BytesMut) -> Result<(), FrameError> {
        self.check(frame.len())?;
        match self.form {
            Form::Lines if frame.contains(&b'\n') || frame.ends_with(b"\r") => {
                return Err(FrameError::LineFeed);
            }
            Form::Lines => {
                bytes.extend_from_slice(frame);
                bytes.put_u8(b'\n');
            }
            Form::LengthPrefixed => {
                let length = u32::try_from(frame.len());
                let too_long = FrameError::TooLong { size: frame.len(), limit: u32::MAX as usize };
                bytes.put_u32(length.map_err(|_| too_long)?);
                bytes.extend_from_slice(frame);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 64;

    fn codecs() -> [FrameCodec; 2] {
        [FrameCodec::lines(MAX), FrameCodec::length_prefixed(MAX)]
    }

    /// Decodes bytes in pieces of this size. Returns the frames, and the error that ended it.
    fn decode(mut codec: FrameCodec, bytes: &[u8], piece: usize) -> (Vec<Bytes>, Result<(), FrameError>) {
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            buffer.extend_from_slice(piece);
            loop {
                match codec.decode(&mut buffer) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Err(error)),
                }
            }
        }
        loop {
            match codec.decode_eof(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, Ok(())),
                Err(error) => return (frames, Err(error)),
            }
        }
    }

    #[test]
    fn lines_may_end_in_crlf_and_empty_ones_are_dropped() {
        let (frames, end) = decode(FrameCodec::lines(MAX), b"\n\r\n{}\r\na\n", 1);
        assert_eq!(frames, ["{}", "a"]);
        assert!(end.is_ok());
        let longest = "x".repeat(MAX);
        for piece in [1, 7, MAX + 1, MAX + 2] {
            let (frames, end) = decode(FrameCodec::lines(MAX), format!("{longest}\r\n").as_bytes(), piece);
            assert_eq!(frames, [longest.as_str()], "{piece}: {end:?}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_is_complete() {
        let endless = [b'x'; MAX + 1];
        let (_, end) = decode(FrameCodec::lines(MAX), &endless, 16);
        assert!(matches!(end, Err(FrameError::TooLong { limit: MAX, .. })), "{end:?}");
        let (_, end) = decode(FrameCodec::length_prefixed(MAX), &[0xff; 4], 4);
        assert!(matches!(end, Err(FrameError::TooLong { size: 0xffff_ffff, .. })), "{end:?}");
        for mut codec in codecs() {
            assert!(codec.encode(&endless[..], &mut BytesMut::new()).is_err());
        }
        for changed_on_the_way in [&b"a\nb"[..], b"a\r"] {
            let encoded = FrameCodec::lines(MAX).encode(changed_on_the_way, &mut BytesMut::new());
            assert!(matches!(encoded, Err(FrameError::LineFeed)), "{encoded:?}");
        }
    }

    proptest! {
        #[test]
        fn decoding_reverses_encoding_however_the_bytes_are_split(
            frames in proptest::collection::vec("[ -~]{1,64}", 0..8), piece in 1usize..20, cut in any::<bool>()
        ) {
            for codec in codecs() {
                let mut bytes = BytesMut::new();
                for frame in &frames {
                    codec.clone().encode(frame.as_bytes(), &mut bytes).unwrap();
                }
                let cut = cut && !bytes.is_empty();
                let whole = bytes.len() - usize::from(cut);
                let (decoded, end) = decode(codec, &bytes[..whole], piece);
                prop_assert_eq!(decoded.len(), frames.len() - usize::from(cut));
                for (frame, decoded) in frames.iter().zip(&decoded) {
                    prop_assert_eq!(frame.as_bytes(), decoded.as_ref());
                }
                prop_assert_eq!(end.is_err(), cut);
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_exceed_the_limit(bytes in any::<Vec<u8>>(), piece in 1usize..9) {
            for codec in codecs() {
                for frame in decode(codec, &bytes, piece).0 {
                    prop_assert!(frame.len() <= MAX);
                }
            }
        }
    }
}
