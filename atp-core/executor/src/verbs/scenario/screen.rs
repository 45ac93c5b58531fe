//! `assert: {screen: …}`: the VM's screen looks like a reference picture.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use atp_protocol::picture::{Picture, Region};

use super::error::ScenarioError;
use super::fields::{Field, Shape, field};
use super::node::Node;
use super::read::{Keys, Names, Result, expected, integer, scalar, texts};
use super::template::Template;

/// The largest file of a reference picture, in bytes.
const LARGEST: u64 = 64 << 20;
/// The largest difference of a colour that counts as none, if the file does not say: encoders and fonts differ by less.
const COLOR: u8 = 16;

/// What is expected of a screen.
#[derive(Debug, Clone, PartialEq)]
pub struct ScreenAssertion {
    /// The reference picture, a file on this machine.
    pub image: Template,
    /// The parts that are compared; all of it without any.
    pub regions: Vec<Region>,
    /// How many percent of the pixels of each region may differ.
    pub tolerance: f64,
    /// By how much a colour of a pixel may differ, of 255.
    pub color: u8,
}

/// The keys of `screen`.
pub(super) const SCREEN: &[Field] = &[
    field("image", Shape::Text, "A PNG file on this machine: a screenshot of the same size"),
    field("regions", Shape::Texts, "The parts that are compared, as X,Y WIDTHxHEIGHT; all of it by default"),
    field(
        "tolerance",
        Shape::Text,
        "How many percent of each region's pixels may differ, such as 2%; 0% by default",
    ),
    field("color", Shape::Integer, "By how much, of 255, a colour of a pixel may differ; 16 by default"),
];

impl ScreenAssertion {
    pub(super) fn read(node: &Node, names: &Names) -> Result<Self> {
        let keys = Keys::of(node, SCREEN, "screen")?;
        let region = |node: &Node| {
            let region = scalar(node)?.parse::<Region>();
            region.map_err(|message| ScenarioError::at(node.place, message))
        };
        let regions = keys.get("regions").map(texts).transpose()?.unwrap_or_default();
        Ok(ScreenAssertion {
            image: names.template(keys.need("image")?)?,
            regions: regions.into_iter().map(region).collect::<Result<_>>()?,
            tolerance: keys.get("tolerance").map(percent).transpose()?.unwrap_or(0.0),
            color: match keys.get("color") {
                Some(node) => {
                    u8::try_from(integer(node)?).map_err(|_| expected(node, "a number from 0 to 255"))?
                }
                None => COLOR,
            },
        })
    }

    /// How a screenshot differs from the reference.
    ///
    /// # Errors
    /// Why they cannot be compared.
    pub(super) fn differences(
        &self,
        reference: &[u8],
        screen: &[u8],
    ) -> std::result::Result<Vec<String>, String> {
        let image = &self.image;
        let reference =
            Picture::from_png(reference).map_err(|reason| format!("the picture {image}: {reason}"))?;
        let screen = Picture::from_png(screen).map_err(|reason| format!("the screenshot: {reason}"))?;
        if (reference.width, reference.height) != (screen.width, screen.height) {
            return Ok(vec![format!(
                "the screen has {}x{} pixels, and {image} has {}x{}",
                screen.width, screen.height, reference.width, reference.height
            )]);
        }
        let whole = [reference.whole()];
        let regions = if self.regions.is_empty() { &whole[..] } else { &self.regions };
        let mut differences = Vec::new();
        for region in regions {
            let Some(differing) = reference.differing(&screen, *region, self.color) else {
                let (width, height) = (reference.width, reference.height);
                return Err(format!(
                    "the region {region} is not in the picture {image} of {width}x{height} pixels"
                ));
            };
            #[expect(clippy::cast_precision_loss, reason = "a picture has far fewer pixels than 2^52")]
            let percent = differing as f64 * 100.0 / region.pixels() as f64;
            if percent > self.tolerance {
                differences.push(format!(
                    "the screen differs from {image} in {percent:.2} % of the pixels of {region}, not at most {} %",
                    self.tolerance
                ));
            }
        }
        Ok(differences)
    }
}

/// Reads a reference picture of limited size. The error says what is wrong with it.
pub(super) fn read_image(path: &Path) -> std::result::Result<Vec<u8>, String> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = read().map_err(|error| format!("the picture {} cannot be read: {error}", path.display()))?;
    match bytes.len() as u64 > LARGEST {
        true => Err(format!("the picture {} is larger than 64 MiB", path.display())),
        false => Ok(bytes),
    }
}

/// A number of percent, with or without the sign.
fn percent(node: &Node) -> Result<f64> {
    let text = scalar(node)?;
    let number = text.trim().trim_end_matches('%').trim_end().parse::<f64>().ok();
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .ok_or_else(|| ScenarioError::at(node.place, "expected a percentage from 0% to 100%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ScreenAssertion> {
        ScreenAssertion::read(&Node::parse(text)?, &Names::new([]))
    }

    /// A picture of 10x10 pixels, of which the first `white` are white.
    fn png(white: usize) -> Vec<u8> {
        let mut ppm = b"P6\n10 10\n255\n".to_vec();
        ppm.extend((0..300).map(|byte| if byte / 3 < white { 255 } else { 0 }));
        atp_protocol::screenshot::Screenshot::from_bytes(ppm).unwrap().png
    }

    #[test]
    fn a_screen_is_compared_with_a_tolerance() {
        let differences =
            |text: &str, screen| read(text).unwrap().differences(&png(0), &png(screen)).unwrap();
        assert_eq!(differences("image: a.png", 0), Vec::<String>::new());
        assert_eq!(
            differences("image: a.png", 5),
            ["the screen differs from a.png in 5.00 % of the pixels of 0,0 10x10, not at most 0 %"]
        );
        assert_eq!(differences("{image: a.png, tolerance: 5%}", 5).len(), 0);
        assert_eq!(differences("{image: a.png, tolerance: 4.9}", 5).len(), 1);
        assert_eq!(differences("{image: a.png, color: 255}", 5).len(), 0);
        assert_eq!(differences("{image: a.png, regions: '0,1 10x9'}", 10).len(), 0);
        assert_eq!(differences("{image: a.png, regions: ['0,1 10x9', '0,0 2x1', '9,0 1x1']}", 5).len(), 1);
    }

    #[test]
    fn what_cannot_be_compared_is_said() {
        let assertion = read("{image: a.png, regions: '5,5 6x1'}").unwrap();
        assert!(assertion.differences(&png(0), &png(0)).unwrap_err().contains("is not in the picture"));
        assert!(assertion.differences(b"x", &png(0)).unwrap_err().starts_with("the picture a.png: "));
        let small =
            atp_protocol::screenshot::Screenshot::from_bytes(b"P6\n1 1\n255\nabc".to_vec()).unwrap().png;
        let differences = assertion.differences(&png(0), &small).unwrap();
        assert_eq!(differences, ["the screen has 1x1 pixels, and a.png has 10x10"]);
    }

    #[test]
    fn what_is_written_wrong_has_a_place() {
        for text in [
            "{regions: '0,0 1x1'}",
            "{image: a, regions: '0,0'}",
            "{image: a, tolerance: 101%}",
            "{image: a, tolerance: nan}",
            "{image: a, tolerance: -1}",
            "{image: a, color: 256}",
        ] {
            assert!(read(text).unwrap_err().place.is_some(), "{text}");
        }
    }
}
