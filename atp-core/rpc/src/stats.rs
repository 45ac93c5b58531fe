//! Statistics of many domains in one call.

use crate::connection::Connection;
use crate::domain::MAX_DOMAINS;
use crate::error::CallError;
use crate::message::{Parameters, RemoteDomain};
use crate::numbers::procedure;
use crate::xdr::{FromXdr, Reader, Result, ToXdr, Writer};

/// The most values of one domain.
const MAX_VALUES: usize = 262_144;

/// Groups of values (`virDomainStatsTypes`). None asks for all.
pub mod group {
    /// The state: `state.state`, `state.reason`.
    pub const STATE: u32 = 1;
    /// Processor time.
    pub const CPU: u32 = 2;
    /// Memory.
    pub const BALLOON: u32 = 4;
    /// Virtual CPUs.
    pub const VCPU: u32 = 8;
    /// Network interfaces.
    pub const INTERFACE: u32 = 16;
    /// Disks.
    pub const BLOCK: u32 = 32;
}

/// Flags (`virConnectGetAllDomainStatsFlags`).
pub mod flag {
    /// Leaves out what would wait for a monitor that is occupied.
    pub const NOWAIT: u32 = 1 << 29;
}

/// The values of one domain.
#[derive(Debug, Clone, PartialEq)]
pub struct DomainStats {
    /// The domain.
    pub domain: RemoteDomain,
    /// Its values.
    pub values: Parameters,
}

impl FromXdr for DomainStats {
    const MIN_SIZE: usize = RemoteDomain::MIN_SIZE + 4;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let domain = RemoteDomain::read(from)?;
        let values = Parameters(from.list("a list of statistics", MAX_VALUES)?);
        Ok(DomainStats { domain, values })
    }
}

/// A daemon's side.
impl ToXdr for DomainStats {
    fn write(&self, to: &mut Writer) -> Result<()> {
        self.domain.write(to)?;
        to.list("a list of statistics", &self.values.0, MAX_VALUES)
    }
}

struct AllStats(Vec<DomainStats>);

impl FromXdr for AllStats {
    const MIN_SIZE: usize = 4;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(AllStats(from.list("a list of domains", MAX_DOMAINS)?))
    }
}

struct Domains<'a>(&'a [RemoteDomain]);

impl ToXdr for Domains<'_> {
    fn write(&self, to: &mut Writer) -> Result<()> {
        to.list("a list of domains", self.0, MAX_DOMAINS)
    }
}

impl Connection {
    /// Values of these [groups](group), of some domains or of all if none is given, by [flags](flag)
    /// (`virConnectGetAllDomainStats`, `virDomainListGetStats`).
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub async fn domain_stats(
        &self,
        domains: &[RemoteDomain],
        groups: u32,
        flags: u32,
    ) -> std::result::Result<Vec<DomainStats>, CallError> {
        let arguments = (Domains(domains), groups, flags);
        let AllStats(stats) = self.call(procedure::CONNECT_GET_ALL_DOMAIN_STATS, &arguments).await?;
        Ok(stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Parameter, Value};
    use crate::xdr::{decode, encode};

    #[test]
    fn what_a_daemon_writes_is_read_again() {
        let domain = RemoteDomain { name: "vm".into(), ..RemoteDomain::of(Default::default()) };
        let values = ["state.state", "state.reason"];
        let values = values.map(|name| Parameter { name: name.into(), value: Value::Int(1) });
        let stats = DomainStats { domain, values: Parameters(values.into()) };
        assert_eq!(decode(&encode(&stats).unwrap()), Ok(stats));
    }
}
