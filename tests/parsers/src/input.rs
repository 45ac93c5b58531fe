//! Text for keyboards and mice, and images from screens.

use atp_protocol::input::{CHORD_MAX, Chord, Coordinate, Layout, MouseAction, Point};
use atp_protocol::screenshot::Screenshot;

use crate::text;

/// Keys pressed together, and text to be typed.
pub(crate) fn chord(bytes: &[u8]) {
    let input = text(bytes);
    if let Ok(chord) = input.parse::<Chord>() {
        assert!((1..=CHORD_MAX).contains(&chord.keys().len()), "{chord}");
        assert_eq!(chord.to_string().parse(), Ok(chord));
    }
    for layout in Layout::ALL {
        match layout.strokes(&input) {
            Ok(strokes) => assert!(strokes.len() <= input.chars().count(), "{strokes:?}"),
            Err(error) => assert_eq!(input.chars().nth(error.position - 1), Some(error.character)),
        }
    }
}

/// Mouse actions: one word per line.
pub(crate) fn mouse(bytes: &[u8]) {
    let words = text(bytes);
    let point = |point: Point| {
        for coordinate in [point.x, point.y] {
            if let Coordinate::Fraction(part) = coordinate {
                assert!((0.0..=1.0).contains(&part), "{words:?}: {part}");
            }
        }
    };
    match MouseAction::from_words(words.split('\n')) {
        Ok(MouseAction::Move(to)) => point(to),
        Ok(MouseAction::Drag { from, to, .. }) => [from, to].into_iter().for_each(point),
        Ok(MouseAction::Click { times, at, .. }) => {
            assert!((1..=2).contains(&times), "{words:?}: {times} times");
            at.into_iter().for_each(point);
        }
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty(), "{words:?}"),
    }
}

/// An image of a screen.
pub(crate) fn screenshot(bytes: &[u8]) {
    if let Ok(shot) = Screenshot::from_bytes(bytes.to_vec()) {
        assert!(shot.size.width > 0 && shot.size.height > 0, "{:?}", shot.size);
        let sizes = [&shot.png, bytes].map(|picture| Screenshot::size_of(picture).ok());
        assert_eq!(sizes, [Some(shot.size); 2]);
        if !bytes.starts_with(b"\x89PNG") {
            let reader = png::Decoder::new(std::io::Cursor::new(&shot.png)).read_info();
            assert!(
                reader.is_ok_and(|reader| reader.info().width == shot.size.width),
                "the result is not a PNG"
            );
        }
    }
    let _ = Screenshot::size_of(bytes);
}
