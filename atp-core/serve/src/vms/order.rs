//! The order in which VMs and hosts are listed.

use std::cmp::Ordering;

/// Compares names as people do: `vm2` comes before `vm10`.
pub(crate) fn by_name(one: &str, other: &str) -> Ordering {
    let (mut left, mut right) = (one.as_bytes(), other.as_bytes());
    loop {
        let compared = match (left.first(), right.first()) {
            (None, _) | (_, None) => return left.len().cmp(&right.len()).then_with(|| one.cmp(other)),
            (Some(a), Some(b)) if a.is_ascii_digit() && b.is_ascii_digit() => {
                let (a, b) = (number(&mut left), number(&mut right));
                a.len().cmp(&b.len()).then_with(|| a.cmp(b))
            }
            (Some(a), Some(b)) => {
                let compared = a.cmp(b);
                (left, right) = (&left[1..], &right[1..]);
                compared
            }
        };
        if compared.is_ne() {
            return compared;
        }
    }
}

/// Takes the digits at the beginning, and returns them without leading zeros.
fn number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().position(|&byte| byte != b'0').unwrap_or(digits.len());
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_count_as_numbers() {
        let mut names = ["vm10", "vm2", "a", "", "vm02b", "vm2b", "vm", "vm-1", "10", "9"];
        names.sort_by(|a, b| by_name(a, b));
        assert_eq!(names, ["", "9", "10", "a", "vm", "vm-1", "vm2", "vm02b", "vm2b", "vm10"]);
    }

    proptest! {
        #[test]
        fn it_is_a_total_order(a in "[a-b0-2]{0,6}", b in "[a-b0-2]{0,6}", c in "[a-b0-2]{0,6}") {
            prop_assert_eq!(by_name(&a, &b), by_name(&b, &a).reverse());
            prop_assert_eq!(by_name(&a, &b).is_eq(), a == b);
            if by_name(&a, &b).is_le() && by_name(&b, &c).is_le() {
                prop_assert!(by_name(&a, &c).is_le());
            }
        }
    }
}
