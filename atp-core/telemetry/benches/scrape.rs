//! The cost of a scrape with a thousand hosts, each with ten operations.

use std::hint::black_box;
use std::sync::Arc;

use atp_telemetry::{Exporter, ExporterConfig, render};
use atp_transport::{
    ConnectAttempt, ConnectError, Connector, HostInfo, InFlight, PooledConnection, TransportConfig,
    TransportError, TransportManager,
};
use criterion::{Criterion, Throughput};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const HOSTS: usize = 1000;
const OPERATIONS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// Opens links that do nothing.
struct Idle;

impl Connector for Idle {
    type Link = ();

    fn validate(&self, _: &HostInfo) -> Result<(), String> {
        Ok(())
    }

    async fn connect(&self, _: &HostInfo, _: ConnectAttempt) -> Result<(), ConnectError> {
        Ok(())
    }

    async fn probe(&self, _: &Arc<()>, _: InFlight, _: Instant) -> Result<(), ConnectError> {
        Ok(())
    }

    fn is_open(&self, (): &()) -> bool {
        true
    }
}

async fn calls(lease: PooledConnection<Idle>) -> Result<(), TransportError> {
    for operation in OPERATIONS {
        lease.call(operation, None, |_, _in_flight| async { Ok(()) }).await?;
    }
    Ok(())
}

async fn fleet() -> Result<Exporter<Idle>, TransportError> {
    let manager = TransportManager::with_connector(TransportConfig::default(), Idle);
    let exporter = Exporter::new(&manager, &ExporterConfig::default());
    for n in 0..HOSTS {
        manager.add_host(HostInfo::new(format!("host{n}"), "192.0.2.1")).await?;
    }
    for (_, result) in manager.execute_on_all_hosts(calls).await {
        result?;
    }
    Ok(exporter)
}

fn scrape(criterion: &mut Criterion) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::new()?;
    let exporter = runtime.block_on(fleet())?;
    let lines = |text: String| text.lines().count() as u64;
    let mut group = criterion.benchmark_group("scrape of 1000 hosts");
    group.sample_size(20);
    group.throughput(Throughput::Elements(lines(exporter.render())));
    group.bench_function("with calls by operation", |b| b.iter(|| black_box(exporter.render())));
    group.throughput(Throughput::Elements(lines(render(exporter.manager()))));
    group.bench_function("without", |b| b.iter(|| black_box(render(exporter.manager()))));
    group.finish();
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    scrape(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
