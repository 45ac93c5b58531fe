//! Whether a pool should have more connections or fewer, by how loaded those it has are.

use crate::config::PoolConfig;

/// What the load says about the number of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scaling {
    Grow,
    Keep,
    Shrink,
}

/// The load of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Places that are spoken for.
    pub(crate) uses: usize,
    /// Leases that it can have with a call in flight each.
    pub(crate) places: usize,
}

impl Load {
    fn is_high(self, config: &PoolConfig) -> bool {
        let Load { uses, places } = self;
        match config.high_load_uses {
            0 => uses > 0 && uses.saturating_mul(4) >= places.saturating_mul(3),
            high => uses > high,
        }
    }
}

/// Decides by the load of each connection in service. The limits are the caller's to keep.
pub(crate) fn decide(loads: impl ExactSizeIterator<Item = Load>, config: &PoolConfig) -> Scaling {
    let count = loads.len();
    if count == 0 {
        return Scaling::Keep;
    }
    let loaded = loads.filter(|load| load.is_high(config)).count();
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

    fn decided(places: usize, uses: &[usize], config: &PoolConfig) -> Scaling {
        decide(uses.iter().map(|&uses| Load { uses, places }), config)
    }

    #[test]
    fn four_of_five_highly_loaded_connections_grow_the_pool() {
        let config = PoolConfig::default();
        for (places, high) in [(1, 1), (2, 2), (3, 3), (4, 3), (16, 12)] {
            assert_eq!(decided(places, &[high, high, high, high, 0], &config), Scaling::Grow);
            assert_eq!(decided(places, &[high, high, high, high - 1, 0], &config), Scaling::Keep);
            assert_eq!(decided(places, &[high - 1; 5], &config), Scaling::Shrink, "of {places}");
        }
        let set = PoolConfig { high_load_uses: 5, ..config };
        assert_eq!(decided(4, &[6, 6, 6, 6, 0], &set), Scaling::Grow);
        assert_eq!(decided(4, &[5, 5, 5, 5, 5], &set), Scaling::Shrink, "five uses are not yet a high load");
    }

    #[test]
    fn an_unloaded_pool_shrinks_and_an_empty_one_is_left_alone() {
        let config = PoolConfig::default();
        assert_eq!(decided(4, &[0], &config), Scaling::Shrink);
        assert_eq!(decided(4, &[3, 0, 0, 0, 0], &config), Scaling::Keep);
        assert_eq!(decided(4, &[3, 0, 0, 0, 0, 0], &config), Scaling::Shrink);
        assert_eq!(decided(4, &[], &config), Scaling::Keep);
        let eager = PoolConfig { scale_up_threshold: 0.0, scale_down_threshold: 0.0, ..config };
        assert_eq!(decided(4, &[0, 0], &eager), Scaling::Keep, "no load is no reason to grow");
    }
}
