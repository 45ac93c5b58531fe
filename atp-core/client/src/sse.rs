//! Server-sent events, as the HTML standard defines their text: lines of fields, an empty line after each event.

use bytes::{Buf as _, Bytes, BytesMut};

/// The maximum size of one event, bytes. An outcome has the output of a program in it, whose limit is far below.
const MAX_EVENT: usize = 256 << 20;

/// One event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Its number, from which the stream can be continued.
    pub id: Option<String>,
    /// Its word.
    pub event: String,
    /// Its data.
    pub data: String,
}

/// Why bytes are not a stream of events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SseError {
    /// An event is larger than any that the service sends.
    #[error("an event of the stream is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// A line is not text.
    #[error("a line of the stream is not UTF-8")]
    NotText,
}

/// Reads events from the pieces of a stream, however it is cut into pieces.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// What is not read yet.
    buffer: BytesMut,
    /// Bytes of the buffer that have no line end among them.
    searched: usize,
    /// The event whose lines are read.
    message: Message,
    has_data: bool,
}

impl Reader {
    /// Adds a piece.
    pub(crate) fn push(&mut self, piece: &Bytes) -> Result<(), SseError> {
        if self.buffer.len() + self.message.data.len() + piece.len() > MAX_EVENT {
            return Err(SseError::TooLarge { limit: MAX_EVENT });
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    /// The next whole event.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, SseError> {
        while let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(self.searched + end);
            self.buffer.advance(1);
            self.searched = 0;
            let line = std::str::from_utf8(&line).map_err(|_| SseError::NotText)?;
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.is_empty() {
                let message = std::mem::take(&mut self.message);
                if std::mem::take(&mut self.has_data) {
                    return Ok(Some(message));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "data" => {
                    if self.has_data {
                        self.message.data.push('\n');
                    }
                    self.message.data.push_str(value);
                    self.has_data = true;
                }
                "event" => value.clone_into(&mut self.message.event),
                "id" => self.message.id = Some(value.to_owned()),
                // A comment, the time to wait before connecting again, or a field of a later version.
                _ => {}
            }
        }
        self.searched = self.buffer.len();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, size: usize) -> Vec<Message> {
        let (mut reader, mut messages) = (Reader::default(), Vec::new());
        for piece in text.as_bytes().chunks(size.max(1)) {
            reader.push(&Bytes::copy_from_slice(piece)).unwrap();
            while let Some(message) = reader.next().unwrap() {
                messages.push(message);
            }
        }
        messages
    }

    fn message(id: &str, event: &str, data: &str) -> Message {
        let id = (!id.is_empty()).then(|| id.to_owned());
        Message { id, event: event.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn comments_and_other_fields_are_passed_over() {
        let text = "retry: 2000\n\n:\n\nid: 7\nevent: finished\ndata: {\"a\":\"é\"}\n\nother\ndata:x\r\ndata: y\r\n\r\n";
        let expected = [message("7", "finished", "{\"a\":\"é\"}"), message("", "", "x\ny")];
        for size in 1..text.len() {
            assert_eq!(read(text, size), expected, "{size}");
        }
    }

    #[test]
    fn an_event_without_its_empty_line_is_not_told() {
        assert_eq!(read("id: 1\nevent: a\ndata: b\n", 100), []);
    }

    #[test]
    fn what_is_no_text_is_an_error() {
        let mut reader = Reader::default();
        reader.push(&Bytes::from_static(b"data: \xff\n\n")).unwrap();
        assert_eq!(reader.next(), Err(SseError::NotText));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_events(
            events in prop::collection::vec(("[0-9]{1,4}", "[a-z]{1,8}", "[^\r\n]{1,40}"), 0..8),
            size in 1_usize..50,
        ) {
            let text: String =
                events.iter().map(|(id, event, data)| format!("id: {id}\nevent: {event}\ndata: {data}\n\n")).collect();
            let expected: Vec<_> = events.iter().map(|(id, event, data)| message(id, event, data)).collect();
            prop_assert_eq!(read(&text, size), expected);
        }
    }
}
