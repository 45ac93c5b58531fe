//! Quantities for people.

use crate::render::table::NOTHING;

const STEPS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Percent of one processor.
pub(crate) fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| format!("{value:.1}%"))
}

/// Bytes per second.
pub(crate) fn rate(value: Option<f64>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| format!("{}/s", bytes(value)))
}

fn bytes(mut value: f64) -> String {
    let mut step = 0;
    while value >= 1023.95 && step + 1 < STEPS.len() {
        value /= 1024.0;
        step += 1;
    }
    let digits = usize::from(value.fract() >= 0.05 && step > 0);
    format!("{value:.digits$} {}", STEPS[step])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_units_that_fit() {
        let shown = [0.0, 3.4, 1023.96, 1536.0, 1024.0 * 1024.0 * 2.25, 1e18].map(|value| rate(Some(value)));
        assert_eq!(shown, ["0 B/s", "3 B/s", "1.0 KiB/s", "1.5 KiB/s", "2.2 MiB/s", "909494.7 TiB/s"]);
        assert_eq!((percent(Some(12.34)), rate(None)), ("12.3%".into(), "-".into()));
    }
}
