//! A range of numbers in a name, with the zero padding that was written: `1-100`, `01-20`, `1:9:2`.

use std::ops::RangeInclusive;

/// The longest number that is read, digits: what surely fits into 64 bits.
pub(crate) const MAX_DIGITS: usize = 18;

/// Numbers from low to high, each written with at least `width` digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NumberRange {
    numbers: RangeInclusive<u64>,
    step: usize,
    width: usize,
}

impl NumberRange {
    /// The range between two bounds, both taken. Zero padding is meant if a bound begins with a zero; then both must have the
    /// same length, for tools differ in what they make of `01-100`.
    ///
    /// # Errors
    /// What was expected in place of these bounds.
    pub(crate) fn new(low: &str, high: &str, step: Option<&str>) -> Result<NumberRange, String> {
        let (first, last) = (number(low)?, number(high)?);
        if last < first {
            return Err(format!("a range from low to high, not {low}-{high}"));
        }
        let is_padded = [low, high].iter().any(|bound| bound.len() > 1 && bound.starts_with('0'));
        let width = if is_padded { low.len() } else { 0 };
        if is_padded && low.len() != high.len() {
            let (short, long) = (low.len().min(high.len()), low.len().max(high.len()));
            return Err(format!(
                "bounds of the same length, as {low}-{high} can mean numbers with {long} digits (write \
                 {first:0long$}-{last:0long$}) or with at least {short} (write the longer ones as a range of their own, as in \
                 [01-99,100-120])"
            ));
        }
        let step = match step.map(number).transpose()? {
            Some(0) => return Err("a step of at least 1".to_owned()),
            step => usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX),
        };
        Ok(NumberRange { numbers: first..=last, step, width })
    }

    /// How many numbers there are.
    pub(crate) fn count(&self) -> u64 {
        (self.numbers.end() - self.numbers.start()) / self.step as u64 + 1
    }

    /// The numbers as they stand in names.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let width = self.width;
        self.numbers.clone().step_by(self.step).map(move |number| format!("{number:0width$}"))
    }
}

fn number(text: &str) -> Result<u64, String> {
    Some(text)
        .filter(|text| text.len() <= MAX_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("a number of at most {MAX_DIGITS} digits, not {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(low: &str, high: &str, step: Option<&str>) -> Vec<String> {
        let range = NumberRange::new(low, high, step).unwrap();
        let names: Vec<_> = range.names().collect();
        assert_eq!(range.count(), names.len() as u64);
        names
    }

    #[test]
    fn zero_padding_is_as_written() {
        assert_eq!(names("8", "11", None), ["8", "9", "10", "11"]);
        assert_eq!(names("08", "11", None), ["08", "09", "10", "11"]);
        assert_eq!(names("0", "10", Some("5")), ["0", "5", "10"]);
        assert_eq!(names("1", "8", Some("3")), ["1", "4", "7"]);
        assert_eq!(names("000", "001", None), ["000", "001"]);
    }

    #[test]
    fn padding_that_tools_read_differently_is_refused_with_both_readings() {
        let error = NumberRange::new("01", "100", None).unwrap_err();
        assert!(error.contains("write 001-100") && error.contains("own, as in"), "{error}");
        assert!(NumberRange::new("1", "010", None).is_err());
    }

    #[test]
    fn bounds_and_steps_are_checked() {
        for (low, high, step, expected) in [
            ("9", "1", None, "from low to high"),
            ("1", "9", Some("0"), "at least 1"),
            ("1", "1234567890123456789", None, "at most 18 digits"),
            ("", "1", None, "a number"),
            ("+1", "2", None, "a number"),
        ] {
            let error = NumberRange::new(low, high, step).unwrap_err();
            assert!(error.contains(expected), "{low}-{high}: {error}");
        }
        assert_eq!(NumberRange::new("0", "999999999999999999", None).unwrap().count(), 10_u64.pow(18));
    }
}
