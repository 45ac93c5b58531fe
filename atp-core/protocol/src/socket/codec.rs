//! Splits bytes into messages: one message per line, of bounded length.
//!
//! QEMU and the agent write one JSON value per line. A byte 0xFF, which no JSON text contains, precedes the reply to
//! `guest-sync-delimited`: everything before it belongs to an older message.

use std::io;

use bytes::{Buf, BytesMut};
use tokio_util::codec::Decoder;

use super::config::Oversized;

/// The byte before the reply to `guest-sync-delimited`, and before such a command.
pub const SENTINEL: u8 = 0xFF;

/// How many bytes of the beginning and of the end of a line that is too long are kept, to identify it.
const ENDS_KEPT: usize = 128;
/// A buffer larger than this is freed when it is empty.
const BUFFER_KEPT: usize = 64 * 1024;
/// The capacity of a new buffer, bytes: most replies are shorter.
const BUFFER_FRESH: usize = 8 * 1024;

/// Splits a peer's bytes into lines.
///
/// It never holds more than its limit and the bytes of one read, and never fails by itself.
#[derive(Debug)]
pub struct LineCodec {
    max: usize,
    oversized: Oversized,
    /// The number of bytes in the buffer that are known to contain no end of line.
    scanned: usize,
    skipped: Option<Skipped>,
    after_sentinel: bool,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whether a [`SENTINEL`] preceded it.
    pub after_sentinel: bool,
    /// Its content.
    pub content: Content,
}

/// The content of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text, not empty, without the end of the line.
    Text(String),
    /// Bytes that are not UTF-8: the first ones.
    NotText(Vec<u8>),
    /// A line longer than the limit.
    TooLong(Skipped),
}

/// The part that is kept of a line that is too long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Its length, bytes.
    pub size: u64,
    /// Its beginning.
    pub head: Vec<u8>,
    /// Its end.
    pub tail: Vec<u8>,
}

impl Skipped {
    fn add(&mut self, part: &[u8]) {
        self.size = self.size.saturating_add(part.len() as u64);
        let missing = ENDS_KEPT.saturating_sub(self.head.len()).min(part.len());
        self.head.extend_from_slice(&part[..missing]);
        self.tail.extend_from_slice(&part[part.len().saturating_sub(ENDS_KEPT)..]);
        let excess = self.tail.len().saturating_sub(ENDS_KEPT);
        self.tail.drain(..excess);
    }
}

impl LineCodec {
    /// Creates a codec for lines of up to `max` bytes. A longer line is reported when it has ended or, with
    /// [`Oversized::Disconnect`], as soon as it is too long.
    pub fn new(max: usize, oversized: Oversized) -> Self {
        LineCodec { max, oversized, scanned: 0, skipped: None, after_sentinel: false }
    }

    /// The finished line, or none if it is empty.
    fn end_of_line(&mut self, line: &[u8]) -> Option<Frame> {
        let content = if let Some(mut skipped) = self.skipped.take() {
            skipped.add(line);
            Content::TooLong(skipped)
        } else if line.len() > self.max {
            let mut skipped = Skipped::default();
            skipped.add(line);
            Content::TooLong(skipped)
        } else {
            match str::from_utf8(line) {
                Ok(text) if text.trim_ascii().is_empty() => return None,
                Ok(text) => Content::Text(text.trim_ascii().to_owned()),
                Err(_) => Content::NotText(line[..line.len().min(ENDS_KEPT)].to_vec()),
            }
        };
        Some(Frame { after_sentinel: std::mem::take(&mut self.after_sentinel), content })
    }
}

impl Decoder for LineCodec {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
        let frame = loop {
            let end = memchr::memchr2(b'\n', SENTINEL, &buffer[self.scanned..]);
            let Some(length) = end.map(|at| self.scanned + at) else {
                self.scanned = buffer.len();
                if self.skipped.is_some() || buffer.len() > self.max {
                    self.skipped.get_or_insert_default().add(buffer);
                    buffer.clear();
                    self.scanned = 0;
                    if self.oversized == Oversized::Disconnect {
                        break self.end_of_line(&[]);
                    }
                }
                break None;
            };
            let line = buffer.split_to(length);
            let end = buffer.get_u8();
            self.scanned = 0;
            if end == SENTINEL {
                self.skipped = None;
                self.after_sentinel = true;
            } else if let Some(frame) = self.end_of_line(&line) {
                break Some(frame);
            }
        };
        if buffer.is_empty() && buffer.capacity() > BUFFER_KEPT && self.skipped.is_none() {
            // Keeps some capacity: otherwise the next read would only fill the few bytes by which the buffer grows.
            *buffer = BytesMut::with_capacity(BUFFER_FRESH);
        }
        Ok(frame)
    }

    /// Distinguishes a peer that closes in the middle of a line from one that closes after it.
    fn decode_eof(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
        match self.decode(buffer)? {
            None if !buffer.trim_ascii().is_empty() || self.skipped.is_some() => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            frame => Ok(frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the frames decoded from these parts, and the largest number of bytes held.
    fn decode(max: usize, parts: &[&[u8]]) -> (Vec<Frame>, usize) {
        let (mut codec, mut buffer) = (LineCodec::new(max, Oversized::Skip), BytesMut::new());
        let (mut frames, mut held) = (Vec::new(), 0);
        for part in parts {
            buffer.extend_from_slice(part);
            while let Some(frame) = codec.decode(&mut buffer).unwrap() {
                frames.push(frame);
            }
            held = held.max(buffer.len());
        }
        (frames, held)
    }

    fn text(text: &str) -> Frame {
        Frame { after_sentinel: false, content: Content::Text(text.into()) }
    }

    #[test]
    fn lines_are_decoded_however_they_are_split() {
        let (frames, _) = decode(100, &[b"{\"a\"", b":1}\r", b"\n\n \r\n{}\n{\"half\":"]);
        assert_eq!(frames, [text("{\"a\":1}"), text("{}")]);
    }

    #[test]
    fn bytes_before_a_sentinel_are_dropped() {
        let (frames, _) = decode(5, &[b"{}\nthe rest of some\xffthing\xff{}\n{}\n"]);
        let after = Frame { after_sentinel: true, ..text("{}") };
        assert_eq!(frames, [text("{}"), after, text("{}")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_not_kept_and_the_next_one_is_read() {
        let long = vec![b'x'; 1000];
        let (frames, held) = decode(300, &[b"{\"begin", &long, &long, &long, b"end\"}", b"\n{}\n"]);
        let Content::TooLong(skipped) = &frames[0].content else { panic!("{:?}", frames[0]) };
        assert_eq!(skipped.size, 3012);
        assert!(skipped.head.starts_with(b"{\"begin") && skipped.tail.ends_with(b"end\"}"));
        assert!(skipped.head.len() <= ENDS_KEPT && skipped.tail.len() <= ENDS_KEPT);
        assert_eq!(frames[1], text("{}"));
        assert!(held <= 300, "{held} bytes were held");
    }

    #[test]
    fn a_line_that_is_too_long_is_reported_before_its_end_if_it_ends_the_link() {
        let mut codec = LineCodec::new(10, Oversized::Disconnect);
        let frame = codec.decode(&mut BytesMut::from(&b"{\"id\": 7, and so on"[..])).unwrap().unwrap();
        let Content::TooLong(skipped) = frame.content else { panic!("{frame:?}") };
        assert_eq!((skipped.size, &skipped.head[..9]), (19, &b"{\"id\": 7,"[..]));
    }

    #[test]
    fn a_large_buffer_is_freed() {
        let (mut codec, mut buffer) = (LineCodec::new(1 << 20, Oversized::Skip), BytesMut::new());
        buffer.extend_from_slice(&vec![b'x'; 1 << 20]);
        buffer.extend_from_slice(b"\n");
        assert!(codec.decode(&mut buffer).unwrap().is_some());
        assert!(codec.decode(&mut buffer).unwrap().is_none());
        assert!(buffer.capacity() <= BUFFER_KEPT, "{} bytes are held", buffer.capacity());
    }

    #[test]
    fn the_end_in_the_middle_of_a_line_is_an_error() {
        let end = |bytes: &[u8]| LineCodec::new(10, Oversized::Skip).decode_eof(&mut BytesMut::from(bytes));
        assert_eq!(end(b"").unwrap(), None);
        assert_eq!(end(b"{}\n").unwrap(), Some(text("{}")));
        assert_eq!(end(b"{\"a").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(end(b"longer than ten bytes").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_hold_more_than_its_limit(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(SENTINEL), Just(b'{'), any::<u8>()], 0..400),
            cuts in prop::collection::vec(0_usize..400, 0..6),
            max in 0_usize..60,
        ) {
            let whole = decode(max, &[&bytes]).0;
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let (split, held) = decode(max, &parts);
            prop_assert_eq!(whole, split, "it matters how the bytes were split");
            prop_assert!(held <= max, "{} bytes were held", held);
        }
    }
}
