//! Whether a pool should have more connections or fewer, by how loaded those it has are.

use crate::config::PoolConfig;

/// What the load says about the number of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scaling {
    Grow,
    Keep,
    Shrink,
}

/// Decides by the leases on each connection in service.
///
/// A connection is highly loaded when it has more than `high_load_uses`. The limits are the caller's to keep.
pub(crate) fn decide(uses: impl ExactSizeIterator<Item = usize>, config: &PoolConfig) -> Scaling {
    let count = uses.len();
    if count == 0 {
        return Scaling::Keep;
    }
    let loaded = uses.filter(|uses| *uses > config.high_load_uses).count();
    let share = loaded as f64 / count as f64;
    if loaded > 0 && share >= config.scale_up_threshold {
        Scaling::Grow
    } else if share < config.scale_down_threshold {
        Scaling::Shrink
    } else {
        Scaling::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(uses: &[usize]) -> Scaling {
        decide(uses.iter().copied(), &PoolConfig::default())
    }

    #[test]
    fn four_of_five_highly_loaded_connections_grow_the_pool() {
        assert_eq!(decided(&[6, 6, 6, 6, 0]), Scaling::Grow);
        assert_eq!(decided(&[6, 6, 6, 5, 0]), Scaling::Keep);
        assert_eq!(decided(&[5, 5, 5, 5, 5]), Scaling::Shrink, "five uses are not yet a high load");
    }

    #[test]
    fn an_unloaded_pool_shrinks_and_an_empty_one_is_left_alone() {
        assert_eq!(decided(&[0]), Scaling::Shrink);
        assert_eq!(decided(&[6, 0, 0, 0, 0]), Scaling::Keep);
        assert_eq!(decided(&[6, 0, 0, 0, 0, 0]), Scaling::Shrink);
        assert_eq!(decided(&[]), Scaling::Keep);
        let eager =
            PoolConfig { scale_up_threshold: 0.0, scale_down_threshold: 0.0, ..PoolConfig::default() };
        assert_eq!(decide([0, 0].into_iter(), &eager), Scaling::Keep, "no load is no reason to grow");
    }
}
