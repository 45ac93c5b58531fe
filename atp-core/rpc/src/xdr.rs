//! XDR (RFC 4506), as far as libvirt uses it: big-endian words of 4 bytes, everything padded to them.
//!
//! A [`Reader`] checks each length against what is left of the payload and against the protocol's own limit before
//! it allocates, so that a payload of n bytes never costs more than a small multiple of n.

use std::mem::size_of;

use bytes::{BufMut, BytesMut};
use thiserror::Error;
use uuid::Uuid;

/// The longest string of the protocol, bytes (`REMOTE_STRING_MAX`).
pub const MAX_STRING: usize = 4 * 1024 * 1024;

/// The room for a payload to begin with, bytes.
const ROOM: usize = 128;

/// Why a value cannot be encoded, or a payload cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum XdrError {
    /// The payload ends inside a value.
    #[error("the payload ends after {left} of the {needed} bytes of a value")]
    Short {
        /// Bytes that the value has.
        needed: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// A string, a list or a whole payload is longer than the protocol allows.
    #[error("{what} of {length}, where {most} is the limit")]
    TooLong {
        /// The kind of value.
        what: &'static str,
        /// Its length: bytes, or elements of a list.
        length: usize,
        /// The most there may be.
        most: usize,
    },
    /// A word that selects a variant has a value that none has.
    #[error("{what} has the unknown value {value}")]
    Unknown {
        /// What the word selects.
        what: &'static str,
        /// Its value.
        value: u32,
    },
    /// The value ends before the payload does.
    #[error("{left} bytes follow the value")]
    Trailing {
        /// How many bytes are left.
        left: usize,
    },
    /// A string to send holds a NUL byte, at which the daemon would cut it.
    #[error("a string holds a NUL byte")]
    Nul,
}

/// A result of encoding or decoding.
pub type Result<T> = std::result::Result<T, XdrError>;

/// What can be sent.
pub trait ToXdr {
    /// Appends the value.
    ///
    /// # Errors
    /// The value is longer than the protocol allows.
    fn write(&self, to: &mut Writer) -> Result<()>;
}

/// What can be received.
pub trait FromXdr: Sized {
    /// The fewest bytes that a value takes: bounds what a list may claim.
    const MIN_SIZE: usize;

    /// Takes the value off the front.
    ///
    /// # Errors
    /// The bytes are no such value.
    fn read(from: &mut Reader<'_>) -> Result<Self>;
}

/// Encodes a whole payload.
///
/// # Errors
/// A part of it, or all of it, is longer than the protocol allows.
pub fn encode(value: &(impl ToXdr + ?Sized)) -> Result<BytesMut> {
    // Arguments are mostly a domain and some numbers.
    let mut writer = Writer { bytes: BytesMut::with_capacity(ROOM) };
    value.write(&mut writer)?;
    limit("a payload", writer.bytes.len(), crate::frame::MAX_PAYLOAD)?;
    Ok(writer.bytes)
}

/// Decodes a whole payload.
///
/// # Errors
/// The payload is not exactly one such value.
pub fn decode<T: FromXdr>(payload: &[u8]) -> Result<T> {
    let mut reader = Reader::new(payload);
    let value = T::read(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

/// Collects the bytes of a payload.
#[derive(Debug)]
pub struct Writer {
    bytes: BytesMut,
}

impl Writer {
    /// Appends bytes as they are, padded.
    pub fn opaque(&mut self, bytes: &[u8]) {
        self.bytes.put_slice(bytes);
        self.bytes.put_bytes(0, padding(bytes.len()));
    }

    /// Appends a length and so many bytes.
    ///
    /// # Errors
    /// There are more than `most` bytes.
    pub fn bytes(&mut self, what: &'static str, bytes: &[u8], most: usize) -> Result<()> {
        self.length(what, bytes.len(), most)?;
        self.opaque(bytes);
        Ok(())
    }

    /// Appends a length and so many bytes, each in a word of its own, as libvirt sends what it declares as `char`.
    ///
    /// # Errors
    /// There are more than `most` bytes.
    pub fn chars(&mut self, what: &'static str, bytes: &[u8], most: usize) -> Result<()> {
        self.length(what, bytes.len(), most)?;
        // A char is signed there.
        bytes.iter().for_each(|byte| self.bytes.put_i32(i32::from(byte.cast_signed())));
        Ok(())
    }

    /// Appends a length and so many values.
    ///
    /// # Errors
    /// There are more than `most` values, or one cannot be sent.
    pub fn list<T: ToXdr>(&mut self, what: &'static str, list: &[T], most: usize) -> Result<()> {
        self.length(what, list.len(), most)?;
        list.iter().try_for_each(|value| value.write(self))
    }

    fn length(&mut self, what: &'static str, length: usize, most: usize) -> Result<()> {
        limit(what, length, most)?;
        // The limits are far below 4 GiB.
        self.bytes.put_u32(length as u32);
        Ok(())
    }
}

/// Takes values off a payload.
#[derive(Debug)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of a payload.
    pub fn new(payload: &'a [u8]) -> Self {
        Reader { left: payload }
    }

    /// Takes so many bytes and their padding.
    ///
    /// # Errors
    /// There are fewer.
    pub fn opaque(&mut self, length: usize) -> Result<&'a [u8]> {
        let needed = length.saturating_add(padding(length));
        match self.left.split_at_checked(needed) {
            Some((taken, left)) => {
                self.left = left;
                Ok(&taken[..length])
            }
            None => Err(XdrError::Short { needed, left: self.left.len() }),
        }
    }

    /// Takes a length and so many bytes.
    ///
    /// # Errors
    /// The length is above `most`, or there are fewer bytes.
    pub fn bytes(&mut self, what: &'static str, most: usize) -> Result<&'a [u8]> {
        let length = self.length(what, most, 1)?;
        self.opaque(length)
    }

    /// Takes a length and so many bytes, each in a word of its own.
    ///
    /// # Errors
    /// The length is above `most`, or there are fewer words.
    pub fn chars(&mut self, what: &'static str, most: usize) -> Result<Vec<u8>> {
        let length = self.length(what, most, size_of::<u32>())?;
        self.char_array(length)
    }

    /// Takes so many bytes, each in a word of its own.
    ///
    /// # Errors
    /// There are fewer words.
    pub fn char_array(&mut self, length: usize) -> Result<Vec<u8>> {
        let words = self.opaque(length.saturating_mul(size_of::<u32>()))?;
        // The upper bytes are the sign.
        Ok(words.iter().skip(3).step_by(4).copied().collect())
    }

    /// Takes a length and so many values.
    ///
    /// # Errors
    /// The length is above `most` or above what the payload can hold, or one of them is no such value.
    pub fn list<T: FromXdr>(&mut self, what: &'static str, most: usize) -> Result<Vec<T>> {
        let length = self.length(what, most, T::MIN_SIZE)?;
        (0..length).map(|_| T::read(self)).collect()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Something is left.
    pub fn finish(self) -> Result<()> {
        if self.left.is_empty() { Ok(()) } else { Err(XdrError::Trailing { left: self.left.len() }) }
    }

    /// Takes the length of a list whose elements take at least `size` bytes each.
    fn length(&mut self, what: &'static str, most: usize, size: usize) -> Result<usize> {
        let length = u32::read(self)? as usize;
        limit(what, length, most)?;
        let needed = length.saturating_mul(size);
        if needed > self.left.len() {
            return Err(XdrError::Short { needed, left: self.left.len() });
        }
        Ok(length)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let left = self.left.len();
        let Some((taken, rest)) = self.left.split_first_chunk() else {
            return Err(XdrError::Short { needed: N, left });
        };
        self.left = rest;
        Ok(*taken)
    }
}

fn padding(length: usize) -> usize {
    length.wrapping_neg() % 4
}

fn limit(what: &'static str, length: usize, most: usize) -> Result<()> {
    if length > most { Err(XdrError::TooLong { what, length, most }) } else { Ok(()) }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl ToXdr for $number {
            fn write(&self, to: &mut Writer) -> Result<()> {
                to.bytes.put_slice(&self.to_be_bytes());
                Ok(())
            }
        }

        impl FromXdr for $number {
            const MIN_SIZE: usize = size_of::<$number>();

            fn read(from: &mut Reader<'_>) -> Result<Self> {
                Ok(<$number>::from_be_bytes(from.array()?))
            }
        }
    )*};
}
numbers!(i32 u32 i64 u64 f64);

/// A flag is 0 or 1. Anything else shows that the layout is not what it is taken for.
impl FromXdr for bool {
    const MIN_SIZE: usize = 4;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        match u32::read(from)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(XdrError::Unknown { what: "a flag", value }),
        }
    }
}

impl ToXdr for bool {
    fn write(&self, to: &mut Writer) -> Result<()> {
        u32::from(*self).write(to)
    }
}

impl ToXdr for str {
    fn write(&self, to: &mut Writer) -> Result<()> {
        if self.contains('\0') {
            return Err(XdrError::Nul);
        }
        to.bytes("a string", self.as_bytes(), MAX_STRING)
    }
}

impl ToXdr for String {
    fn write(&self, to: &mut Writer) -> Result<()> {
        self.as_str().write(to)
    }
}

/// libvirt's strings are C strings, mostly UTF-8. What is not is replaced, so that a message in another encoding
/// does not cost the reply that carries it.
impl FromXdr for String {
    const MIN_SIZE: usize = 4;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(String::from_utf8_lossy(from.bytes("a string", MAX_STRING)?).into_owned())
    }
}

impl<T: ToXdr> ToXdr for Option<T> {
    fn write(&self, to: &mut Writer) -> Result<()> {
        self.is_some().write(to)?;
        self.iter().try_for_each(|value| value.write(to))
    }
}

impl<T: FromXdr> FromXdr for Option<T> {
    const MIN_SIZE: usize = 4;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        if bool::read(from)? { T::read(from).map(Some) } else { Ok(None) }
    }
}

impl ToXdr for Uuid {
    fn write(&self, to: &mut Writer) -> Result<()> {
        to.opaque(self.as_bytes());
        Ok(())
    }
}

impl FromXdr for Uuid {
    const MIN_SIZE: usize = 16;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(Uuid::from_bytes(from.array()?))
    }
}

impl<T: ToXdr + ?Sized> ToXdr for &T {
    fn write(&self, to: &mut Writer) -> Result<()> {
        (**self).write(to)
    }
}

macro_rules! tuples {
    ($(($($name:ident)*))*) => {$(
        impl<$($name: ToXdr),*> ToXdr for ($($name,)*) {
            #[expect(non_snake_case, reason = "the types' names serve as those of the values")]
            fn write(&self, _to: &mut Writer) -> Result<()> {
                let ($($name,)*) = self;
                $($name.write(_to)?;)*
                Ok(())
            }
        }

        impl<$($name: FromXdr),*> FromXdr for ($($name,)*) {
            const MIN_SIZE: usize = 0 $(+ $name::MIN_SIZE)*;

            fn read(_from: &mut Reader<'_>) -> Result<Self> {
                Ok(($($name::read(_from)?,)*))
            }
        }
    )*};
}
tuples!((A)(A B)(A B C)(A B C D)(A B C D E)(A B C D E F));

/// Nothing at all: what many procedures take or return.
impl ToXdr for () {
    fn write(&self, _to: &mut Writer) -> Result<()> {
        Ok(())
    }
}

impl FromXdr for () {
    const MIN_SIZE: usize = 0;

    fn read(_from: &mut Reader<'_>) -> Result<Self> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn values_are_laid_out_as_the_rfc_says() {
        let value = (Some("ab"), None::<i32>, -2i64, true);
        let bytes = encode(&value).unwrap();
        let mut expected = words(&[1, 2]);
        expected.extend(b"ab\0\0");
        expected.extend(words(&[0, u32::MAX, u32::MAX - 1, 1]));
        assert_eq!(bytes, expected);
    }

    #[test]
    fn chars_take_a_word_each() {
        let mut writer = Writer { bytes: BytesMut::new() };
        writer.chars("data", &[1, 0xff], 2).unwrap();
        assert_eq!(writer.bytes, words(&[2, 1, u32::MAX]));
        assert_eq!(Reader::new(&writer.bytes).chars("data", 2), Ok(vec![1, 0xff]));
    }

    #[test]
    fn a_length_is_checked_before_anything_is_read() {
        let claim = words(&[u32::MAX]);
        let long = Reader::new(&claim).list::<u32>("a list", 10);
        assert_eq!(long, Err(XdrError::TooLong { what: "a list", length: u32::MAX as usize, most: 10 }));
        let claim = words(&[10, 1]);
        let short = Reader::new(&claim).list::<u32>("a list", 10);
        assert_eq!(short, Err(XdrError::Short { needed: 40, left: 4 }));
        assert!(matches!(decode::<String>(&words(&[MAX_STRING as u32 + 1])), Err(XdrError::TooLong { .. })));
    }

    #[test]
    fn what_cannot_be_said_is_not_sent() {
        assert_eq!(encode("a\0b"), Err(XdrError::Nul));
        let long = "x".repeat(MAX_STRING + 1);
        assert!(matches!(encode(&long), Err(XdrError::TooLong { .. })));
    }

    #[test]
    fn a_payload_is_one_value_and_no_more() {
        assert_eq!(decode::<u32>(&words(&[1, 2])), Err(XdrError::Trailing { left: 4 }));
        assert_eq!(decode::<bool>(&words(&[2])), Err(XdrError::Unknown { what: "a flag", value: 2 }));
        assert_eq!(decode::<String>(b"\0\0\0\x01\xff\0\0\0"), Ok("\u{fffd}".to_owned()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            text in "[^\0]{0,40}", number in any::<i32>(), big in any::<u64>(), flag in any::<bool>(),
            uuid in any::<u128>(), list in proptest::collection::vec(any::<Option<i64>>(), 0..20),
        ) {
            let value = (text, number, big, (flag, Uuid::from_u128(uuid)), Some(1.5f64));
            let mut writer = Writer { bytes: BytesMut::new() };
            value.write(&mut writer).unwrap();
            writer.list("a list", &list, 20).unwrap();
            let mut reader = Reader::new(&writer.bytes);
            prop_assert_eq!(FromXdr::read(&mut reader), Ok(value));
            prop_assert_eq!(reader.list("a list", 20), Ok(list));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn no_payload_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            type Value = (Option<String>, Uuid, (i32, u64));
            let mut reader = Reader::new(&bytes);
            if let Ok(list) = reader.list::<Value>("a list", 100) {
                prop_assert!(list.len() * Value::MIN_SIZE <= bytes.len());
            }
            let _any = Reader::new(&bytes).chars("data", 100);
        }
    }
}
