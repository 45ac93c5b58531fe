//! Smooth weighted round robin: turns in proportion to weights, evenly mixed.

use std::collections::{BTreeMap, BTreeSet};

/// How much each of several candidates is owed.
#[derive(Debug)]
pub(crate) struct WeightedTurns<K> {
    owed: BTreeMap<K, i64>,
}

impl<K> Default for WeightedTurns<K> {
    fn default() -> Self {
        WeightedTurns { owed: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> WeightedTurns<K> {
    /// The place of the candidate whose turn it is, of candidates with their weights, a weight of 0 counting as 1; none if
    /// there are none. Candidates that are missing begin anew when they return.
    ///
    /// Each turn adds to each candidate its weight; the one with the largest sum is chosen, and the total weight is
    /// subtracted from it.
    pub(crate) fn next(&mut self, candidates: impl Iterator<Item = (K, u32)> + Clone) -> Option<usize> {
        let (mut total, mut count) = (0, 0);
        let mut most: Option<(i64, usize, K)> = None;
        for (at, (key, weight)) in candidates.clone().enumerate() {
            count += 1;
            let weight = i64::from(weight.max(1));
            let owed = self.owed.entry(key.clone()).or_default();
            *owed += weight;
            total += weight;
            if most.as_ref().is_none_or(|(before, ..)| *owed > *before) {
                most = Some((*owed, at, key));
            }
        }
        if self.owed.len() > count {
            let present: BTreeSet<K> = candidates.map(|(key, _)| key).collect();
            self.owed.retain(|key, _| present.contains(key));
        }
        let (_, at, key) = most?;
        *self.owed.entry(key).or_default() -= total;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    fn turns(weights: &[u32], count: usize) -> Vec<usize> {
        let mut turns = WeightedTurns::default();
        (0..count).filter_map(|_| turns.next(weights.iter().copied().enumerate())).collect()
    }

    #[test]
    fn weights_are_evenly_mixed() {
        assert_eq!(turns(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert!(turns(&[], 1).is_empty());
    }

    proptest! {
        #[test]
        fn each_has_its_share(weights in proptest::collection::vec(1u32..9, 1..8)) {
            let chosen = turns(&weights, weights.iter().sum::<u32>() as usize);
            for (at, &weight) in weights.iter().enumerate() {
                prop_assert_eq!(chosen.iter().filter(|&&n| n == at).count(), weight as usize);
            }
        }
    }
}
