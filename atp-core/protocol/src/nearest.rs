//! What was probably meant by a name that is not known.

/// The most slips of the finger between what was typed and what was meant.
const SLIPS: usize = 2;

/// The known name that a slip of the finger or two would make of this one.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    known
        // A name of another length is another name, which costs nothing to see.
        .filter(|known| known.chars().count().abs_diff(length) <= SLIPS)
        // Of the short ones, all are like all others.
        .filter(|known| known.len() > SLIPS)
        .map(|known| (strsim::damerau_levenshtein(known, name), known))
        .filter(|(distance, _)| *distance <= SLIPS)
        .min()
        .map(|(_, known)| known)
}
