//! Which connection the next lease gets: plain functions over one snapshot of a pool.

use crate::config::SelectionStrategy;
use crate::sync::weighted_turns::WeightedTurns;

/// A connection that can carry another lease, as a strategy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its place in the pool.
    pub(crate) index: usize,
    /// The connection's id.
    pub(crate) id: u64,
    /// Calls in flight that it carries.
    pub(crate) weight: usize,
    /// Leases on it.
    pub(crate) uses: usize,
    /// Leases it can carry beyond those.
    pub(crate) free: usize,
}

/// The place in the pool of the candidate that is chosen; none if there are none.
///
/// The candidates come in the order of their turns, the one whose turn it is first; `random` is anywhere from
/// 0 to below 1.
pub(crate) fn choose(
    strategy: SelectionStrategy,
    mut candidates: impl Iterator<Item = Candidate> + Clone,
    turns: &mut WeightedTurns<u64>,
    random: impl FnOnce() -> f64,
) -> Option<usize> {
    let chosen = match strategy {
        SelectionStrategy::RoundRobin => candidates.next(),
        SelectionStrategy::WeightedRoundRobin => by_weight(candidates, turns),
        SelectionStrategy::LeastConnections => least_connections(candidates),
        SelectionStrategy::Weighted => weighted(candidates, random()),
        SelectionStrategy::Random => at_random(candidates, random()),
    };
    chosen.map(|candidate| candidate.index)
}

/// One after the other, each as often as its weight says.
fn by_weight(
    mut candidates: impl Iterator<Item = Candidate> + Clone,
    turns: &mut WeightedTurns<u64>,
) -> Option<Candidate> {
    let weights = candidates.clone().map(|one| (one.id, u32::try_from(one.weight).unwrap_or(u32::MAX)));
    turns.next(weights).and_then(|at| candidates.nth(at))
}

/// The one with the fewest leases; among equals the one whose turn comes first.
fn least_connections(candidates: impl Iterator<Item = Candidate>) -> Option<Candidate> {
    let mut least: Option<Candidate> = None;
    for candidate in candidates {
        // None has fewer than none: no need to look at the others.
        if candidate.uses == 0 {
            return Some(candidate);
        }
        if least.is_none_or(|least| candidate.uses < least.uses) {
            least = Some(candidate);
        }
    }
    least
}

/// At random, in proportion to how many more leases each can carry.
fn weighted(candidates: impl Iterator<Item = Candidate> + Clone, random: f64) -> Option<Candidate> {
    // More bits than one number of leases can have: there are several.
    let free = |candidate: &Candidate| candidate.free as u128;
    let total: u128 = candidates.clone().map(|candidate| free(&candidate)).sum();
    let mut point = (total as f64 * random) as u128;
    candidates.clone().find(|candidate| {
        let here = point < free(candidate);
        point = point.saturating_sub(free(candidate));
        here
    })
}

/// At random, each alike.
fn at_random(mut candidates: impl Iterator<Item = Candidate> + Clone, random: f64) -> Option<Candidate> {
    let count = candidates.clone().count();
    candidates.nth((count as f64 * random) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn with_uses(uses: &[usize]) -> Vec<Candidate> {
        let candidate = |(index, &uses)| Candidate { free: 16 - uses, uses, ..carries(index, 1) };
        uses.iter().enumerate().map(candidate).collect()
    }

    /// An unused connection that carries so many calls.
    fn carries(index: usize, weight: usize) -> Candidate {
        Candidate { index, id: index as u64, weight, uses: 0, free: 16 }
    }

    fn pick(
        strategy: SelectionStrategy,
        candidates: &[Candidate],
        turn: usize,
        random: f64,
    ) -> Option<usize> {
        let (before, after) = candidates.split_at(candidates.partition_point(|c| c.index < turn));
        choose(strategy, after.iter().chain(before).copied(), &mut WeightedTurns::default(), || random)
    }

    #[test]
    fn round_robin_goes_on_and_starts_over() {
        let mut three = with_uses(&[0, 0, 0]);
        assert_eq!(pick(SelectionStrategy::RoundRobin, &three, 1, 0.0), Some(1));
        assert_eq!(pick(SelectionStrategy::RoundRobin, &three, 3, 0.0), Some(0));
        three.remove(1);
        assert_eq!(pick(SelectionStrategy::RoundRobin, &three, 1, 0.0), Some(2));
    }

    #[test]
    fn weighted_round_robin_goes_by_the_calls_that_each_carries_wherever_the_turn_is() {
        let (mut turns, mut turn) = (WeightedTurns::default(), 0);
        let candidates = [carries(0, 4), carries(1, 1), carries(2, 2)];
        let chosen: Vec<_> = (0..7)
            .filter_map(|_| {
                let (before, after) = candidates.split_at(turn);
                let in_turn = after.iter().chain(before).copied();
                let at = choose(SelectionStrategy::WeightedRoundRobin, in_turn, &mut turns, || 0.0)?;
                turn = at + 1;
                Some(at)
            })
            .collect();
        let count = |index| chosen.iter().filter(|&&at| at == index).count();
        assert_eq!((count(0), count(1), count(2)), (4, 1, 2), "{chosen:?}");
    }

    #[test]
    fn least_connections_takes_the_least_used_and_turns_among_equals() {
        assert_eq!(pick(SelectionStrategy::LeastConnections, &with_uses(&[3, 1, 2]), 0, 0.0), Some(1));
        assert_eq!(pick(SelectionStrategy::LeastConnections, &with_uses(&[1, 1, 1]), 1, 0.0), Some(1));
        assert_eq!(pick(SelectionStrategy::LeastConnections, &with_uses(&[1, 1, 1]), 3, 0.0), Some(0));
    }

    #[test]
    fn weighted_goes_by_what_is_free() {
        let candidates = with_uses(&[15, 4]);
        let picks = (0..13).map(|n| pick(SelectionStrategy::Weighted, &candidates, 0, f64::from(n) / 13.0));
        assert_eq!(picks.filter(|pick| *pick == Some(0)).count(), 1, "1 free of 13");
    }

    #[test]
    fn room_without_end_is_room() {
        let endless: Vec<_> =
            (0..20).map(|index| Candidate { free: usize::MAX >> 3, ..carries(index, 1) }).collect();
        assert_eq!(pick(SelectionStrategy::Weighted, &endless, 0, 0.99), Some(19));
    }

    proptest! {
        #[test]
        fn every_strategy_picks_one_of_the_candidates(
            uses in proptest::collection::vec(0usize..16, 0..20),
            turn in 0usize..40,
            random in 0.0f64..1.0,
        ) {
            let candidates = with_uses(&uses);
            for &strategy in SelectionStrategy::ALL {
                let picked = pick(strategy, &candidates, turn, random);
                prop_assert_eq!(picked.is_some(), !candidates.is_empty(), "{}", strategy);
                prop_assert!(picked.is_none_or(|index| index < candidates.len()));
            }
        }
    }
}
