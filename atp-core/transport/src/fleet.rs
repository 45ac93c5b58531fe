//! What a fleet should be, and how a manager is brought in line with it while work runs.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use serde::Serialize;

use crate::config::{ConfigError, ConfigProblem, TransportConfig};
use crate::connector::Connector;
use crate::error::{ErrorKind, Result};
use crate::events::TransportEvent;
use crate::host::{HostId, HostInfo};
use crate::manager::{TransportManager, drain};

/// All hosts of a fleet, and the configuration of those that have none of their own.
///
/// [`TransportManager::apply`] brings a manager in line with one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fleet {
    /// The common configuration.
    pub config: TransportConfig,
    /// The hosts.
    pub hosts: Vec<HostInfo>,
}

/// What applying a fleet changed, by host id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Hosts that were not there before.
    pub added: Vec<HostId>,
    /// Hosts that are there no more. Work under way on them has their `drain_timeout` to end.
    pub removed: Vec<HostId>,
    /// Hosts that are reached in another way than before: drained as if removed, and added anew.
    pub replaced: Vec<HostId>,
    /// Hosts with another configuration, weight, groups or labels than before; work on them goes on.
    pub reconfigured: Vec<HostId>,
}

impl Changes {
    /// Whether all was as it should be already.
    pub fn is_empty(&self) -> bool {
        let Changes { added, removed, replaced, reconfigured } = self;
        [added, removed, replaced, reconfigured].iter().all(|hosts| hosts.is_empty())
    }
}

impl<C: Connector> TransportManager<C> {
    /// Brings the manager in line with `fleet` without dropping work: adds hosts, removes them, and has those that
    /// stay go by their new configuration, limits, weights, groups and labels at once.
    ///
    /// Where a limit is lowered, calls that are under way go on; connections that are too many are closed when
    /// their leases are back. What is settled when a connection is opened (its lifetime, keepalive) holds for
    /// connections opened from then on. Removed and replaced hosts drain in the background.
    ///
    /// # Errors
    /// [`TransportError::Config`](crate::TransportError::Config) with every problem at once, each under its key
    /// (`transport.…`, `hosts.ID.…`). Nothing has changed then.
    ///
    /// Must be called within a tokio runtime.
    pub fn apply(&self, fleet: Fleet) -> Result<Changes> {
        let mut hosts = match self.check(&fleet) {
            Ok(hosts) => hosts,
            Err(error) => {
                let problems = error.problems.iter().map(ToString::to_string).collect();
                self.emit_for_all(TransportEvent::ConfigurationRefused { problems });
                return Err(error.into());
            }
        };
        let mut state = self.state_mut();
        self.adopt(&mut state, fleet.config);
        let mut changes = Changes::default();
        for (id, pool) in mem::take(&mut state.hosts) {
            match hosts.remove(&id) {
                None => {
                    self.emit(&id, TransportEvent::HostRemoved);
                    tokio::spawn(drain(pool));
                    changes.removed.push(id);
                }
                Some(info) if info.effective_uri() != pool.info().effective_uri() => {
                    self.emit(&id, TransportEvent::HostRemoved);
                    tokio::spawn(drain(pool));
                    changes.replaced.push(id.clone());
                    self.open_pool(&mut state, id, info);
                }
                Some(info) => {
                    let config = info.config.clone().unwrap_or_else(|| state.config.clone());
                    if config != *pool.config() || info != *pool.info() {
                        changes.reconfigured.push(id.clone());
                        pool.reconfigure(info, config);
                    }
                    state.hosts.insert(id, pool);
                }
            }
        }
        for (id, info) in hosts {
            changes.added.push(id.clone());
            self.open_pool(&mut state, id, info);
        }
        drop(state);
        self.emit_for_all(TransportEvent::ConfigurationApplied { changes: changes.clone() });
        Ok(changes)
    }

    /// The hosts of a fleet by their ids, if everything about it can be used.
    fn check(&self, fleet: &Fleet) -> Result<BTreeMap<HostId, HostInfo>, ConfigError> {
        let mut problems = Vec::new();
        let mut add = |section: &[&str], error: ConfigError| {
            problems.extend(error.problems.into_iter().map(|problem| problem.below(section)));
        };
        if let Err(error) = fleet.config.validate() {
            add(&["transport"], error);
        }
        let (mut hosts, mut seen) = (BTreeMap::new(), BTreeSet::new());
        for info in &fleet.hosts {
            let section = ["hosts", info.id.as_str()];
            let problem = |text: String, kind: ErrorKind| ConfigError {
                problems: vec![ConfigProblem::new("", None, text).hint(kind.hint())],
            };
            let id = match info.id.parse::<HostId>() {
                Ok(id) => id,
                Err(error) => {
                    add(&section, problem(error.to_string(), ErrorKind::InvalidHostId));
                    continue;
                }
            };
            if !seen.insert(id.clone()) {
                let twice = format!("the host {id} is given twice");
                add(&section, problem(twice, ErrorKind::DuplicateHost));
            }
            if let Err(reason) = self.connector().validate(info) {
                add(&section, problem(format!("host {id}: {reason}"), ErrorKind::InvalidUri));
            }
            if let Some(own) = &info.config
                && let Err(error) = fleet.config.validate_for_host(own)
            {
                add(&["hosts", info.id.as_str(), "transport"], error);
            }
            hosts.insert(id, info.clone());
        }
        ConfigError::unless_empty(problems).map(|()| hosts)
    }
}
