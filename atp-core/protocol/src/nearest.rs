//! The known name that is nearest to an unknown one.

/// The largest edit distance between a typed name and the intended one.
const MAX_DISTANCE: usize = 2;

/// The known name that differs from this one by a typing error or two.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    known
        // A name of very different length is another name; this check is cheap.
        .filter(|known| known.chars().count().abs_diff(length) <= MAX_DISTANCE)
        // All short names are similar to each other.
        .filter(|known| known.len() > MAX_DISTANCE)
        .map(|known| (strsim::damerau_levenshtein(known, name), known))
        .filter(|(distance, _)| *distance <= MAX_DISTANCE)
        .min()
        .map(|(_, known)| known)
}
