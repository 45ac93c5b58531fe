//! File names made of names from elsewhere.

use std::fmt::Write as _;

use atp_protocol::files::Digest;

/// The longest file name made, bytes: what file systems take is 255, and a suffix may follow.
const LONGEST: usize = 200;

/// The digits of the checksum of a longer name.
const CHECKSUM: usize = 16;

/// Makes a file name from any name, such as a VM's: one path component, not hidden, without characters that are special to
/// a terminal or a shell. Different names stay different: a name that is too long ends in a checksum of all of it.
///
/// Characters that are neither letters nor digits nor among `.-_+@` become `%` and their bytes in hexadecimal digits, and so do a
/// dot or a dash at the beginning.
pub(crate) fn safe_name(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for (at, c) in name.char_indices() {
        let plain = c.is_alphanumeric() || "-_.+@".contains(c) && !(at == 0 && ".-".contains(c));
        if plain {
            safe.push(c);
        } else {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(safe, "%{byte:02x}");
            }
        }
    }
    if safe.is_empty() {
        safe.push('%');
    }
    if safe.len() > LONGEST {
        let mut checksum = Digest::of(name.as_bytes()).to_string();
        checksum.truncate(CHECKSUM);
        safe.truncate(safe.floor_char_boundary(LONGEST - CHECKSUM - 1));
        safe = format!("{safe}~{checksum}");
    }
    safe
}

/// The name that a safe one was made of; none if it ends in a checksum, or no name becomes it.
pub(crate) fn name_of_safe(safe: &str) -> Option<String> {
    // What an empty name becomes: no byte follows.
    if safe == "%" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(safe.len());
    let mut rest = safe;
    while let Some((plain, escape)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        bytes.push(u8::from_str_radix(escape.get(..2)?, 16).ok()?);
        rest = &escape[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    // The same name in another form is refused: only what is made here is read.
    String::from_utf8(bytes).ok().filter(|name| safe_name(name) == safe)
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_are_safe_stay_as_they_are() {
        for name in ["web-1", "Ä_1.log", "a+b@c"] {
            assert_eq!(safe_name(name), name);
        }
        assert_eq!(safe_name("../../etc"), "%2e.%2f..%2fetc");
        assert_eq!(safe_name("-rf"), "%2drf");
        assert_eq!(safe_name("a\x1b[2J\n"), "a%1b%5b2J%0a");
        assert_eq!(safe_name(""), "%");
        assert_eq!(safe_name("%2e"), "%252e");
    }

    #[test]
    fn long_names_stay_different() {
        let (one, other) = (format!("{}1", "ü".repeat(120)), format!("{}2", "ü".repeat(120)));
        let names = [&one, &other].map(|name| safe_name(name));
        assert_ne!(names[0], names[1]);
        assert!(names.iter().all(|name| name.len() <= LONGEST), "{names:?}");
    }

    #[test]
    fn what_no_name_becomes_is_not_read() {
        for safe in ["", "%2", "%4", "a/b", "..", "%61", "%ff", "%+1", "x~", "%2E"] {
            assert_eq!(name_of_safe(safe), None, "{safe}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_one_visible_component(name in any::<String>(), other in any::<String>()) {
            let safe = safe_name(&name);
            let components: Vec<_> = Path::new(&safe).components().collect();
            prop_assert!(matches!(components.as_slice(), [Component::Normal(_)]), "{safe:?}");
            prop_assert!(safe.len() <= LONGEST && !safe.starts_with('.') && !safe.contains(char::is_control));
            if !safe.contains('~') {
                prop_assert_eq!(name_of_safe(&safe), Some(name.clone()));
            }
            if name != other {
                prop_assert_ne!(safe, safe_name(&other));
            }
        }
    }
}
