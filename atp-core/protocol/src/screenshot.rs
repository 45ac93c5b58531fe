//! Screenshots of a VM, always PNG.
//!
//! libvirt passes on the hypervisor's format: PNG from newer versions of QEMU, PPM (`P6`) from older ones.

pub use atp_api::ScreenshotLimits;
use atp_transport::{LibvirtConnection, RawImage};
use tokio::time::{self, Instant};
use uuid::Uuid;

use crate::error::{ProtocolError, Result};
use crate::input::ScreenSize;
use crate::peer::Peer;

const PNG_START: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The last chunk, which is empty and therefore constant.
const PNG_END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";
/// Enough bytes of an image to read its size. A PPM may have comments before it.
const HEADER_BYTES: usize = 512;

/// A screenshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screenshot {
    /// The PNG file.
    pub png: Vec<u8>,
    /// Its size.
    pub size: ScreenSize,
}

/// Takes a screenshot of a VM. The first screen is 0 (`virDomainScreenshot`).
///
/// # Errors
/// [`ImageTooLarge`](ProtocolError::ImageTooLarge) and [`InvalidImage`](ProtocolError::InvalidImage), and those
/// of [`LibvirtConnection::screenshot`].
///
/// Cancel safe.
pub async fn take(
    connection: &LibvirtConnection,
    domain: Uuid,
    screen: u32,
    limits: ScreenshotLimits,
    deadline: Instant,
) -> Result<Screenshot> {
    let image = fetch(connection, domain, screen, limits.max_bytes, deadline).await?;
    if image.complete {
        Screenshot::from_bytes(image.bytes)
    } else if image.bytes.len() >= limits.max_bytes {
        Err(ProtocolError::ImageTooLarge { limit: limits.max_bytes })
    } else {
        Err(ProtocolError::Timeout { peer: Peer::Monitor, sent: true })
    }
}

/// The size of a VM's screen, from the header of a screenshot.
///
/// # Errors
/// As [`take`]. Cancel safe.
pub async fn screen_size(
    connection: &LibvirtConnection,
    domain: Uuid,
    screen: u32,
    deadline: Instant,
) -> Result<ScreenSize> {
    let image = fetch(connection, domain, screen, HEADER_BYTES, deadline).await?;
    Screenshot::size_of(&image.bytes)
}

async fn fetch(
    connection: &LibvirtConnection,
    domain: Uuid,
    screen: u32,
    max_bytes: usize,
    deadline: Instant,
) -> Result<RawImage> {
    let taken = time::timeout_at(deadline, connection.screenshot(domain, screen, max_bytes)).await;
    taken.map_err(|_| ProtocolError::Timeout { peer: Peer::Monitor, sent: true })?.map_err(Into::into)
}

impl Screenshot {
    /// Converts an image in the hypervisor's format to PNG. `bytes` are the whole image.
    ///
    /// # Errors
    /// [`InvalidImage`](ProtocolError::InvalidImage) if it is not a complete PNG or PPM.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        if bytes.starts_with(PNG_START) {
            if !bytes.ends_with(PNG_END) {
                return Err(invalid("the PNG has no end"));
            }
            return Ok(Screenshot { size: png_size(&bytes)?, png: bytes });
        }
        let (size, pixels) = ppm_header(&bytes)?;
        let pixels = bytes.get(pixels..).unwrap_or_default();
        let expected = u128::from(size.width) * u128::from(size.height) * 3;
        if pixels.len() as u128 != expected {
            return Err(invalid(&format!("{} bytes of pixels for {size}, not {expected}", pixels.len())));
        }
        Ok(Screenshot { png: encode(size, pixels)?, size })
    }

    /// The size of an image, from its first bytes.
    ///
    /// # Errors
    /// [`InvalidImage`](ProtocolError::InvalidImage) if the bytes are not the beginning of a PNG or PPM.
    pub fn size_of(beginning: &[u8]) -> Result<ScreenSize> {
        if beginning.starts_with(PNG_START) { png_size(beginning) } else { Ok(ppm_header(beginning)?.0) }
    }
}

fn encode(size: ScreenSize, pixels: &[u8]) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size.width, size.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(pixels)?;
        writer.finish()
    });
    written.map_err(|error| invalid(&format!("it cannot be written as PNG: {error}")))?;
    Ok(file)
}

/// The size in a PNG's first chunk.
fn png_size(bytes: &[u8]) -> Result<ScreenSize> {
    let number =
        |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes);
    match (bytes.get(12..16), number(16), number(20)) {
        (Some(b"IHDR"), Some(width), Some(height)) if width > 0 && height > 0 => {
            Ok(ScreenSize { width, height })
        }
        _ => Err(invalid("the PNG has no header")),
    }
}

/// The size in the header of a PPM (`P6 WIDTH HEIGHT 255`, then one white space), and the offset of its pixels.
fn ppm_header(bytes: &[u8]) -> Result<(ScreenSize, usize)> {
    let mut rest = bytes.strip_prefix(b"P6").ok_or_else(|| invalid("neither PNG nor PPM"))?;
    let mut numbers = [0u32; 3];
    for number in &mut numbers {
        rest = skip_blank(rest);
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = std::str::from_utf8(&rest[..digits]).unwrap_or_default();
        *number = text.parse().map_err(|_| invalid("the PPM's header is invalid"))?;
        rest = &rest[digits..];
    }
    let [width, height, depth] = numbers;
    let pixels = rest.split_first().filter(|(blank, _)| blank.is_ascii_whitespace());
    match pixels {
        Some((_, pixels)) if width > 0 && height > 0 && depth == 255 => {
            Ok((ScreenSize { width, height }, bytes.len() - pixels.len()))
        }
        _ => Err(invalid("the PPM does not have 8 bits for each colour")),
    }
}

/// Skips white space and comments, which extend from `#` to the end of the line.
fn skip_blank(mut bytes: &[u8]) -> &[u8] {
    loop {
        bytes = bytes.trim_ascii_start();
        if bytes.first() != Some(&b'#') {
            return bytes;
        }
        let line = bytes.iter().take_while(|byte| **byte != b'\n').count();
        bytes = &bytes[line..];
    }
}

fn invalid(detail: &str) -> ProtocolError {
    ProtocolError::InvalidImage { detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PPM: &[u8] = b"P6\n# by QEMU\n2 1\n255\n\xff\0\0\0\0\xff";

    fn read(bytes: &[u8]) -> Result<Screenshot> {
        Screenshot::from_bytes(bytes.to_vec())
    }

    #[test]
    fn a_ppm_becomes_a_png_with_the_same_pixels() {
        let screenshot = read(PPM).unwrap();
        assert_eq!(screenshot.size, ScreenSize { width: 2, height: 1 });
        let mut reader = png::Decoder::new(std::io::Cursor::new(&screenshot.png)).read_info().unwrap();
        let mut pixels = [0; 6];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, PPM[PPM.len() - 6..]);
        // A PNG is not changed.
        assert_eq!(read(&screenshot.png).unwrap(), screenshot);
        assert_eq!(Screenshot::size_of(&screenshot.png[..33]).unwrap(), screenshot.size);
    }

    #[test]
    fn truncated_data_and_other_formats_are_refused() {
        let png = read(PPM).unwrap().png;
        for bytes in [
            &PPM[..PPM.len() - 1],
            &png[..png.len() - 1],
            b"",
            b"GIF89a",
            b"P6 2 1 65535\n",
            b"P6 0 0 255\n",
            // A size whose number of pixel bytes does not fit into 64 bits.
            b"P6 4294967295 4294967295 255\n",
        ] {
            let error = read(bytes).unwrap_err();
            assert_eq!(error.kind(), "invalid-image", "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>(), header in "P6[ \n#0-9]{0,20}") {
            let _ = read(&bytes);
            let _ = read(header.as_bytes());
            let _ = png_size(&[PNG_START, &bytes].concat());
        }
    }
}
