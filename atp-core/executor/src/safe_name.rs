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

    proptest! {
        #[test]
        fn any_name_is_one_visible_component(name in any::<String>(), other in any::<String>()) {
            let safe = safe_name(&name);
            let components: Vec<_> = Path::new(&safe).components().collect();
            prop_assert!(matches!(components.as_slice(), [Component::Normal(_)]), "{safe:?}");
            prop_assert!(safe.len() <= LONGEST && !safe.starts_with('.') && !safe.contains(char::is_control));
            if name != other {
                prop_assert_ne!(safe, safe_name(&other));
            }
        }
    }
}
