//! Numbers as values of options.

pub(crate) fn parse_count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&count| count > 0).ok_or_else(|| "expected a number of at least 1".to_owned())
}

pub(crate) fn parse_number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("expected a whole number, 0 or more, of at most {}", u32::MAX))
}
