//! What the configuration says of lending connections: the few numbers that every lease is a matter of, kept
//! where the leases are, so that the whole configuration needs not be looked up for each.

use std::time::Duration;

use crate::config::{SelectionStrategy, TransportConfig};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Which connection is lent.
    pub(crate) strategy: SelectionStrategy,
    /// Most leases a connection may have.
    pub(crate) most: usize,
    /// Most it has while the pool can grow: as many as it may have calls in flight, if its link allows them.
    pub(crate) soft_max: usize,
    /// Most connections that are opened side by side.
    pub(crate) max_opening: usize,
    /// How long somebody waits for a further connection before sharing one.
    pub(crate) grow_patience: Duration,
    /// A connection quiet for so long is asked for a sign of life before it is lent.
    pub(crate) validate_after: Duration,
}

impl Terms {
    pub(crate) fn of(config: &TransportConfig) -> Self {
        let TransportConfig { pool, .. } = config;
        Terms {
            strategy: pool.selection_strategy,
            most: pool.max_uses_per_connection,
            soft_max: pool.max_uses_per_connection.min(config.calls.per_connection()),
            max_opening: pool.max_opening,
            grow_patience: pool.grow_patience,
            validate_after: pool.validate_after,
        }
    }
}
