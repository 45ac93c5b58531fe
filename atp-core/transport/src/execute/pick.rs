//! Which host of a group gets the next work: plain functions over one snapshot of the group.

use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr, VariantArray};

use crate::host::HostId;
use crate::sync::weighted_turns::WeightedTurns;

/// How a host of a group is picked. Hosts that would refuse the work at once, because they cannot be connected to or
/// their circuit breaker is open, come last in any case.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Display, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Pick {
    /// One after the other, by id.
    RoundRobin,
    /// One after the other, each as often as its [weight](crate::HostInfo::weight) says, evenly mixed.
    WeightedRoundRobin,
    /// At random, in proportion to the weights.
    WeightedRandom,
    /// The one with the least work, running and waiting; by turns among equals.
    LeastInFlight,
    /// At random, each alike.
    Random,
}

impl Pick {
    /// All of them.
    pub const ALL: &[Pick] = Pick::VARIANTS;

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A host of a group, as a pick sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) id: HostId,
    pub(crate) weight: u32,
    /// Leases and those who wait for one.
    pub(crate) in_flight: usize,
    /// It would take work now.
    pub(crate) is_ready: bool,
}

/// Whose turn it is in a group.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Who was picked last.
    last: Option<HostId>,
    by_weight: WeightedTurns<HostId>,
}

/// The place of the candidate that is picked; none if there are none.
///
/// The candidates come by id; `random` is anywhere from 0 to below 1. A host of weight 0 is picked by weight only if no
/// other is left.
pub(crate) fn choose(pick: Pick, candidates: &[Candidate], turns: &mut Turns, random: f64) -> Option<usize> {
    let by_weight = matches!(pick, Pick::WeightedRoundRobin | Pick::WeightedRandom);
    let rank = |candidate: &Candidate| (!candidate.is_ready, by_weight && candidate.weight == 0);
    let best = candidates.iter().map(rank).min()?;
    let eligible: Vec<_> =
        candidates.iter().enumerate().filter(|(_, candidate)| rank(candidate) == best).collect();
    let (at, chosen) = match pick {
        Pick::RoundRobin => next_in_turn(&eligible, turns),
        Pick::WeightedRoundRobin => most_owed(&eligible, turns),
        Pick::WeightedRandom => weighted(&eligible, random),
        Pick::LeastInFlight => least_in_flight(&eligible, turns),
        Pick::Random => eligible.get((eligible.len() as f64 * random) as usize).copied(),
    }?;
    turns.last = Some(chosen.id.clone());
    Some(at)
}

type Eligible<'a> = (usize, &'a Candidate);

/// The first behind the one that was last.
fn next_in_turn<'a>(eligible: &[Eligible<'a>], turns: &Turns) -> Option<Eligible<'a>> {
    let behind = |(_, candidate): &&Eligible<'a>| Some(&candidate.id) > turns.last.as_ref();
    eligible.iter().find(behind).or(eligible.first()).copied()
}

fn most_owed<'a>(eligible: &[Eligible<'a>], turns: &mut Turns) -> Option<Eligible<'a>> {
    let candidates = eligible.iter().map(|(_, candidate)| (candidate.id.clone(), candidate.weight));
    turns.by_weight.next(candidates).and_then(|at| eligible.get(at)).copied()
}

fn weighted<'a>(eligible: &[Eligible<'a>], random: f64) -> Option<Eligible<'a>> {
    let weight = |(_, candidate): &Eligible<'a>| u64::from(candidate.weight.max(1));
    let total: u64 = eligible.iter().map(weight).sum();
    let mut point = (total as f64 * random) as u64;
    let chosen = eligible.iter().find(|candidate| {
        let here = point < weight(candidate);
        point = point.saturating_sub(weight(candidate));
        here
    });
    chosen.copied()
}

fn least_in_flight<'a>(eligible: &[Eligible<'a>], turns: &Turns) -> Option<Eligible<'a>> {
    let least = eligible.iter().map(|(_, candidate)| candidate.in_flight).min()?;
    let equals: Vec<_> =
        eligible.iter().filter(|(_, candidate)| candidate.in_flight == least).copied().collect();
    next_in_turn(&equals, turns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn host(n: usize, weight: u32) -> Candidate {
        Candidate { id: format!("h{n}").parse().unwrap(), weight, in_flight: 0, is_ready: true }
    }

    fn hosts(weights: &[u32]) -> Vec<Candidate> {
        weights.iter().enumerate().map(|(n, &weight)| host(n, weight)).collect()
    }

    fn picks(pick: Pick, candidates: &[Candidate], count: usize) -> Vec<usize> {
        let mut turns = Turns::default();
        let random = |n| n as f64 / count as f64;
        (0..count).filter_map(|n| choose(pick, candidates, &mut turns, random(n))).collect()
    }

    #[test]
    fn round_robin_goes_on_and_starts_over() {
        assert_eq!(picks(Pick::RoundRobin, &hosts(&[1, 1, 1]), 5), [0, 1, 2, 0, 1]);
    }

    #[test]
    fn at_random_in_proportion() {
        let chosen = picks(Pick::WeightedRandom, &hosts(&[3, 0, 1]), 100);
        let count = |n| chosen.iter().filter(|&&at| at == n).count();
        assert_eq!((count(0), count(1), count(2)), (75, 0, 25));
        let chosen = picks(Pick::Random, &hosts(&[3, 0, 1]), 99);
        assert_eq!(chosen.iter().filter(|&&at| at == 1).count(), 33);
    }

    #[test]
    fn the_least_in_flight_and_by_turns_among_equals() {
        let mut three = hosts(&[1, 1, 1]);
        three[0].in_flight = 1;
        assert_eq!(picks(Pick::LeastInFlight, &three, 4), [1, 2, 1, 2]);
    }

    #[test]
    fn those_that_would_refuse_come_last() {
        for &pick in Pick::ALL {
            let mut three = hosts(&[9, 1, 9]);
            (three[0].is_ready, three[2].is_ready, three[1].in_flight) = (false, false, 7);
            assert_eq!(picks(pick, &three, 3), [1, 1, 1], "{pick}");
            three.remove(1);
            assert_eq!(picks(pick, &three, 3).len(), 3, "{pick}");
        }
    }

    proptest! {
        #[test]
        fn every_pick_is_one_of_the_best(
            hosts in proptest::collection::vec((0u32..5, 0usize..9, any::<bool>()), 0..12),
            random in 0.0f64..1.0,
            count in 1usize..20,
        ) {
            let candidates: Vec<_> = hosts
                .iter()
                .enumerate()
                .map(|(n, &(weight, in_flight, is_ready))| Candidate { in_flight, is_ready, ..host(n, weight) })
                .collect();
            for &pick in Pick::ALL {
                let mut turns = Turns::default();
                for _ in 0..count {
                    let at = choose(pick, &candidates, &mut turns, random);
                    prop_assert_eq!(at.is_some(), !candidates.is_empty());
                    let anybody_ready = candidates.iter().any(|candidate| candidate.is_ready);
                    prop_assert!(at.is_none_or(|at| candidates[at].is_ready == anybody_ready), "{}", pick);
                }
            }
        }

        #[test]
        fn weighted_round_robin_keeps_the_shares(weights in proptest::collection::vec(1u32..9, 1..8)) {
            let candidates = hosts(&weights);
            let total = weights.iter().sum::<u32>() as usize;
            let chosen = picks(Pick::WeightedRoundRobin, &candidates, total);
            for (at, &weight) in weights.iter().enumerate() {
                prop_assert_eq!(chosen.iter().filter(|&&n| n == at).count(), weight as usize);
            }
        }
    }
}
