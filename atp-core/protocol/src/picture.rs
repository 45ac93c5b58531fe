//! Pictures as pixels, to compare a screen with a reference.

use std::fmt;
use std::io::Cursor;
use std::str::FromStr;

use png::{ColorType, Decoder, Transformations};

/// The most pixels of a picture: a screen of 8K.
const MOST_PIXELS: u64 = 7680 * 4320;

/// A picture, with a red, a green and a blue byte for each pixel.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    rgb: Vec<u8>,
}

/// A rectangle in a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Pixels from the left.
    pub x: u32,
    /// Pixels from the top.
    pub y: u32,
    /// Pixels in a row; at least one.
    pub width: u32,
    /// Rows; at least one.
    pub height: u32,
}

impl Picture {
    /// Reads a PNG of any colour type. The error says what is wrong with it.
    pub fn from_png(png: &[u8]) -> Result<Self, String> {
        let mut decoder = Decoder::new(Cursor::new(png));
        decoder.set_transformations(Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(|error| format!("it is no PNG: {error}"))?;
        let (width, height) = reader.info().size();
        if u64::from(width) * u64::from(height) > MOST_PIXELS {
            return Err(format!("{width}x{height} pixels are too many"));
        }
        let size = reader.output_buffer_size().ok_or("its pixels are too many")?;
        let mut bytes = vec![0; size];
        let frame = reader.next_frame(&mut bytes).map_err(|error| format!("it is no PNG: {error}"))?;
        bytes.truncate(frame.buffer_size());
        let rgb = match frame.color_type {
            ColorType::Rgb => bytes,
            ColorType::Rgba => {
                bytes.chunks_exact(4).flat_map(|pixel| pixel.iter().take(3)).copied().collect()
            }
            ColorType::Grayscale => bytes.iter().flat_map(|gray| [*gray; 3]).collect(),
            ColorType::GrayscaleAlpha => {
                bytes.chunks_exact(2).filter_map(|pixel| pixel.first()).flat_map(|gray| [*gray; 3]).collect()
            }
            ColorType::Indexed => return Err("its palette was not resolved".to_owned()),
        };
        Ok(Picture { width, height, rgb })
    }

    /// All of it.
    pub fn whole(&self) -> Region {
        Region { x: 0, y: 0, width: self.width, height: self.height }
    }

    /// Whether a region is in it.
    pub fn contains(&self, region: Region) -> bool {
        let ends = |from: u32, length: u32, limit: u32| u64::from(from) + u64::from(length) <= limit.into();
        ends(region.x, region.width, self.width) && ends(region.y, region.height, self.height)
    }

    /// How many pixels of a region differ from those of another picture of the same size: those of which a colour differs by
    /// more than `color`. None if the pictures have different sizes, or the region is not in them.
    pub fn differing(&self, other: &Picture, region: Region, color: u8) -> Option<u64> {
        if (self.width, self.height) != (other.width, other.height) || !self.contains(region) {
            return None;
        }
        let mut differing = 0;
        for row in region.y..region.y + region.height {
            let (own, others) = (self.row(row, region)?, other.row(row, region)?);
            let pixels = own.chunks_exact(3).zip(others.chunks_exact(3));
            let differ =
                |(one, other): (&[u8], &[u8])| one.iter().zip(other).any(|(a, b)| a.abs_diff(*b) > color);
            differing += pixels.filter(|pair| differ(*pair)).count() as u64;
        }
        Some(differing)
    }

    /// The bytes of a region in a row.
    fn row(&self, row: u32, region: Region) -> Option<&[u8]> {
        let start = (row as usize * self.width as usize + region.x as usize) * 3;
        self.rgb.get(start..start + region.width as usize * 3)
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

impl Region {
    /// The number of its pixels.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Region { x, y, width, height } = self;
        write!(f, "{x},{y} {width}x{height}")
    }
}

impl FromStr for Region {
    type Err = String;

    /// Reads `X,Y WIDTHxHEIGHT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (place, size) = text.trim().split_once(char::is_whitespace)?;
            let (x, y) = place.split_once(',')?;
            let (width, height) = size.trim().split_once('x')?;
            let number = |text: &str| text.trim().parse::<u32>().ok();
            Some(Region { x: number(x)?, y: number(y)?, width: number(width)?, height: number(height)? })
        };
        read().filter(|region| region.pixels() > 0).ok_or_else(|| {
            format!("{text:?} is not a region: expected X,Y WIDTHxHEIGHT in pixels, such as 0,0 320x200")
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A PNG of these bytes.
    fn png(width: u32, height: u32, color: ColorType, bytes: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(color);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(bytes).unwrap();
        writer.finish().unwrap();
        file
    }

    fn picture(width: u32, height: u32, pixel: impl Fn(u32, u32) -> u8) -> Picture {
        let bytes = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let bytes: Vec<u8> = bytes.flat_map(|(x, y)| [pixel(x, y); 3]).collect();
        Picture::from_png(&png(width, height, ColorType::Rgb, &bytes)).unwrap()
    }

    #[test]
    fn all_colour_types_are_read() {
        let gray = Picture::from_png(&png(2, 1, ColorType::Grayscale, &[7, 9])).unwrap();
        assert_eq!(gray, Picture::from_png(&png(2, 1, ColorType::Rgb, &[7, 7, 7, 9, 9, 9])).unwrap());
        assert_eq!(gray, Picture::from_png(&png(2, 1, ColorType::Rgba, &[7, 7, 7, 0, 9, 9, 9, 1])).unwrap());
        assert_eq!(gray, Picture::from_png(&png(2, 1, ColorType::GrayscaleAlpha, &[7, 0, 9, 1])).unwrap());
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let whole = png(2, 2, ColorType::Grayscale, &[0; 4]);
        for bytes in [&b""[..], b"P6\n1 1\n255\n", whole.get(..40).unwrap()] {
            assert!(Picture::from_png(bytes).is_err(), "{bytes:?}");
        }
        // A header that promises far more than there is.
        let mut huge = whole;
        huge.splice(16..24, [0, 0, 255, 255, 0, 0, 255, 255]);
        assert!(Picture::from_png(&huge).is_err());
    }

    #[test]
    fn pixels_of_a_region_are_compared_with_a_tolerance() {
        let one = picture(4, 3, |_, _| 100);
        let other = picture(4, 3, |x, y| if (x, y) == (3, 2) { 110 } else { 100 });
        let region = |text: &str| text.parse::<Region>().unwrap();
        assert_eq!(one.differing(&other, one.whole(), 0), Some(1));
        assert_eq!(one.differing(&other, one.whole(), 9), Some(1));
        assert_eq!(one.differing(&other, one.whole(), 10), Some(0));
        assert_eq!(one.differing(&other, region("0,0 3x3"), 0), Some(0));
        assert_eq!(one.differing(&other, region("2,1 2x2"), 0), Some(1));
        assert_eq!(one.differing(&other, region("2,1 3x2"), 0), None);
        assert_eq!(one.differing(&other, region("4294967295,0 1x1"), 0), None);
        assert_eq!(one.differing(&picture(3, 4, |_, _| 100), region("0,0 1x1"), 0), None);
    }

    #[test]
    fn a_region_is_written_as_its_place_and_size() {
        assert_eq!("10,20 300x40".parse(), Ok(Region { x: 10, y: 20, width: 300, height: 40 }));
        for wrong in ["", "1,2", "1,2 0x4", "-1,2 3x4", "1 2 3x4", "1,2 3x99999999999"] {
            assert!(wrong.parse::<Region>().unwrap_err().contains("X,Y WIDTHxHEIGHT"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_number_of_differing_pixels_is_that_of_those_that_were_changed(
            (width, height) in (1_u32..12, 1_u32..12),
            changed in prop::collection::btree_set((0_u32..12, 0_u32..12), 0..20),
            region in (0_u32..12, 0_u32..12, 1_u32..12, 1_u32..12),
        ) {
            let one = picture(width, height, |_, _| 50);
            let other = picture(width, height, |x, y| if changed.contains(&(x, y)) { 200 } else { 50 });
            let region = Region { x: region.0, y: region.1, width: region.2, height: region.3 };
            let inside = |(x, y): &&(u32, u32)| {
                (region.x..region.x + region.width).contains(x) && (region.y..region.y + region.height).contains(y)
            };
            let expected = one.contains(region).then(|| changed.iter().filter(inside).count() as u64);
            prop_assert_eq!(one.differing(&other, region, 100), expected);
            prop_assert_eq!(region.to_string().parse(), Ok(region));
        }
    }
}
