//! `NAME=VALUE` as the value of an option.

/// A parser of pairs. `expected` is what it says of other text.
pub(crate) fn pair(
    expected: &'static str,
) -> impl Fn(&str) -> Result<(String, String), &'static str> + Clone {
    move |text| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(expected),
    }
}
