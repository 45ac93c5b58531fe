//! Names, folded by their numbers: `h1/web-[1-40]` for forty of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::number_range::MAX_DIGITS;
use crate::selector::escape;

/// How many folded names are printed.
const SHOWN: usize = 8;

/// How many ranges of numbers are printed of each.
const RANGES: usize = 8;

/// Names, folded by their numbers. [`Display`](fmt::Display) prints the first few, and how many more there are; each as a
/// selector that stands for these names and no others.
///
/// ```
/// use atp_executor::Folded;
///
/// let names = ["h1/web-9", "h1/web-10", "h2/web-9", "h2/web-10", "h2/db"];
/// assert_eq!(Folded::of(names).to_string(), "h[1-2]/web-[9-10], h2/db");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    items: Vec<Item>,
}

/// Names that differ in their numbers alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Item(Vec<Field>);

/// A part of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    Text(String),
    /// Numbers, each written with at least `width` digits: 0 if they have no zeros before them.
    Numbers {
        numbers: BTreeSet<u64>,
        width: usize,
    },
}

impl Folded {
    /// Folds the names: of VMs, of hosts, or `HOST/VM`. Names that are there twice count once.
    pub fn of(names: impl IntoIterator<Item = impl AsRef<str>>) -> Folded {
        let items: BTreeSet<Item> = names.into_iter().map(|name| Item::of(name.as_ref())).collect();
        let longest = items.iter().map(|item| item.0.len()).max().unwrap_or(0);
        // By the last number first: VMs of a host rather than hosts with a VM.
        let items = (0..longest).rev().fold(items, fold_by);
        Folded { items: items.into_iter().collect() }
    }

    /// The folded names, each as a selector that stands for them, all of it.
    pub fn items(&self) -> impl ExactSizeIterator<Item = String> {
        self.items.iter().map(ToString::to_string)
    }

    /// The number of names.
    pub fn len(&self) -> usize {
        self.items.iter().map(Item::count).sum()
    }

    /// Whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// At most this many of the folded names, each cut to a few ranges, and the number of names that are then left out.
    pub fn shown(&self, most: usize) -> (Vec<String>, usize) {
        let shown: Vec<Item> = self.items.iter().take(most).map(Item::cut).collect();
        let names: usize = shown.iter().map(Item::count).sum();
        (shown.iter().map(ToString::to_string).collect(), self.len() - names)
    }
}

/// Joins the items that differ in one field alone, if that is a number.
fn fold_by(items: BTreeSet<Item>, at: usize) -> BTreeSet<Item> {
    let mut folded = BTreeSet::new();
    let mut joined: BTreeMap<Item, Vec<(BTreeSet<u64>, usize)>> = BTreeMap::new();
    for mut item in items {
        match item.0.get_mut(at) {
            Some(Field::Numbers { numbers, width }) => {
                let taken = (std::mem::take(numbers), std::mem::take(width));
                joined.entry(item).or_default().push(taken);
            }
            _ => {
                folded.insert(item);
            }
        }
    }
    for (item, numbers) in joined {
        let mut by_width: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
        let padded: BTreeSet<usize> = numbers.iter().map(|(_, width)| *width).collect();
        for (numbers, width) in numbers {
            for number in numbers {
                // `10` beside `09` goes with the numbers of two digits.
                let digits = digits(number);
                let width = if width == 0 && padded.contains(&digits) { digits } else { width };
                by_width.entry(width).or_default().insert(number);
            }
        }
        for (width, numbers) in by_width {
            let mut item = item.clone();
            if let Some(field) = item.0.get_mut(at) {
                *field = Field::Numbers { numbers, width };
            }
            folded.insert(item);
        }
    }
    folded
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

impl Item {
    /// A name, taken apart into text and numbers.
    fn of(name: &str) -> Item {
        let mut fields = Vec::new();
        let mut rest = name;
        while let Some(first) = rest.chars().next() {
            let is_number = first.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != is_number).unwrap_or(rest.len());
            let (part, after) = rest.split_at(end);
            rest = after;
            let number = Some(part).filter(|part| is_number && part.len() <= MAX_DIGITS);
            fields.push(match number.and_then(|number| number.parse().ok()) {
                Some(number) => {
                    let width = if part.len() > digits(number) { part.len() } else { 0 };
                    Field::Numbers { numbers: BTreeSet::from([number]), width }
                }
                None => Field::Text(part.to_owned()),
            });
        }
        Item(fields)
    }

    /// The number of names.
    fn count(&self) -> usize {
        let counts = self.0.iter().map(|field| match field {
            Field::Text(_) => 1,
            Field::Numbers { numbers, .. } => numbers.len(),
        });
        counts.product()
    }

    /// The names with the numbers of the first few ranges.
    fn cut(&self) -> Item {
        let fields = self.0.iter().map(|field| match field {
            Field::Numbers { numbers, width } => {
                let kept = ranges(numbers).into_iter().take(RANGES).flat_map(|(low, high)| low..=high);
                Field::Numbers { numbers: kept.collect(), width: *width }
            }
            text => text.clone(),
        });
        Item(fields.collect())
    }
}

/// The numbers as ranges without gaps.
fn ranges(numbers: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, high)) if *high + 1 == number => *high = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for field in &self.0 {
            match field {
                // Between host and VM a '/' is itself.
                Field::Text(text) => {
                    f.write_str(&text.split('/').map(escape).collect::<Vec<_>>().join("/"))?
                }
                Field::Numbers { numbers, width } => {
                    let (open, close) = if numbers.len() > 1 { ("[", "]") } else { ("", "") };
                    let ranges = ranges(numbers).into_iter().map(|(low, high)| match low == high {
                        true => format!("{low:0width$}"),
                        false => format!("{low:0width$}-{high:0width$}"),
                    });
                    write!(f, "{open}{}{close}", ranges.collect::<Vec<_>>().join(","))?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Folded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, more) = self.shown(SHOWN);
        if shown.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&shown.join(", "))?;
        if more > 0 { write!(f, ", … and {more} more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::selector::Selector;

    fn folded(names: &[&str]) -> String {
        Folded::of(names).to_string()
    }

    #[test]
    fn names_fold_by_their_numbers() {
        assert_eq!(folded(&["web-1", "web-2", "web-3", "web-7"]), "web-[1-3,7]");
        assert_eq!(folded(&["b", "a"]), "a, b");
        assert_eq!(folded(&["web-1"]), "web-1");
        assert_eq!(folded(&["n09", "n10", "n8", "n9", "n11"]), "n[8-9], n[09-11]");
        assert_eq!(folded(&["a1-2024", "a2-2024"]), "a[1-2]-2024");
        assert_eq!(folded(&["web*1", "web*2"]), r"web\*[1-2]");
        assert_eq!(folded(&[]), "none");
        assert_eq!(folded(&["x1", "x1"]), "x1");
    }

    #[test]
    fn five_hundred_vms_of_two_hosts_are_two_folded_names() {
        let names = (1..=500).map(|n| format!("h{}/web-{n}", (n - 1) / 250 + 1));
        assert_eq!(Folded::of(names).to_string(), "h1/web-[1-250], h2/web-[251-500]");
        let names = (1..=500).map(|n| format!("h{}/web-{}", (n - 1) / 250 + 1, (n - 1) % 250));
        assert_eq!(Folded::of(names).to_string(), "h[1-2]/web-[0-249]");
    }

    #[test]
    fn five_hundred_names_that_do_not_fold_are_a_few_and_a_count() {
        let scattered = Folded::of((0..500).map(|n| format!("web-{}", n * 3)));
        assert_eq!(scattered.to_string(), "web-[0,3,6,9,12,15,18,21], … and 492 more");
        let letters = |n: usize| {
            format!("{}{}", char::from(b'a' + (n / 26 % 26) as u8), char::from(b'a' + (n % 26) as u8))
        };
        let words = Folded::of((0..500).map(letters));
        assert_eq!(words.to_string(), "aa, ab, ac, ad, ae, af, ag, ah, … and 492 more");
        assert_eq!(words.len(), 500);
    }

    /// Whether one of the folded names, read as a selector, selects the VM.
    fn selects(folded: &Folded, host: &str, vm: &str) -> bool {
        let host = atp_transport::HostInfo::new(host, "127.0.0.1");
        folded.items().any(|text| {
            let selector: Selector = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            selector.host().matches(&host) && selector.matches_vm(vm)
        })
    }

    proptest! {
        #[test]
        fn folded_names_read_as_selectors_are_these_names_and_no_others(
            names in prop::collection::btree_set(("h[0-3]{1,2}", r"[-ab\[*,{}:0-3]{1,6}|n[019]{1,3}"), 1..40),
            others in prop::collection::vec(("h[0-3]{1,2}", r"[-ab\[*,{}:0-3]{1,6}|n[019]{1,3}"), 0..40),
        ) {
            let folded = Folded::of(names.iter().map(|(host, vm)| format!("{host}/{vm}")));
            prop_assert_eq!(folded.len(), names.len());
            for (host, vm) in names.iter().chain(&others) {
                let is_one = names.contains(&(host.clone(), vm.clone()));
                prop_assert_eq!(selects(&folded, host, vm), is_one, "{}/{} in {}", host, vm, folded);
            }
        }

        #[test]
        fn numbers_that_are_folded_and_spelled_out_are_the_same_names(
            numbers in prop::collection::btree_set((0_u64..3000, 0_usize..5), 2..60),
        ) {
            let names: BTreeSet<String> =
                numbers.iter().map(|(number, width)| format!("web-{number:0width$}")).collect();
            let items: Vec<String> = Folded::of(&names).items().collect();
            let mut spelled = BTreeSet::new();
            for item in &items {
                // A comma keeps single digits from being read as a class.
                let item = item.replace('[', "[10000,");
                let selector: Selector = item.parse().unwrap_or_else(|error| panic!("{item}: {error}"));
                spelled.extend(selector.vm_names().iter().filter(|name| *name != "web-10000").cloned());
            }
            prop_assert_eq!(spelled, names);
        }
    }
}
