//! What a command to a VM costs: a carrier's call beside the bare one over the same way.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use atp_protocol::socket::{SocketCarrier, SocketConfig, SocketConnection, SocketConnector};
use atp_protocol::{Carrier, Channel, LibvirtCarrier, ProtocolError};
use atp_testbed::{Qemu, Testbed};
use atp_transport::{HostInfo, LibvirtConnection, TransportConfig, TransportManager};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use uuid::Uuid;
use virt::connect::Connect;

use crate::table::{Table, verdict};
use crate::{bare, median};

/// Each side runs for so long, then it is the other's turn.
const TURN: Duration = Duration::from_millis(200);
const ROUNDS: usize = 31;
const QUERY: &str = r#"{"execute":"query-status"}"#;
/// Longest a call may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The least shares of the bare rates that are wanted, percent.
const LIBVIRT_GOAL: f64 = 95.0;
const SOCKET_GOAL: f64 = 90.0;

/// Measures, and prints a table.
pub(crate) fn report() -> Result<()> {
    let runtime = Runtime::new()?;
    let mut table = Table::new(["way", "bare calls/s", "by a carrier", "of the bare rate", "goal", ""]);
    through_libvirt(&runtime, &mut table)?;
    by_socket(&runtime, &mut table)?;
    table.print(&format!(
        "`query-status` of one VM, one call after the other; median of {ROUNDS} rounds, in which each side had a turn \
         of {} ms:",
        TURN.as_millis()
    ));
    Ok(())
}

fn row(table: &mut Table, way: &str, bare: &[f64], ours: &[f64], goal: f64) {
    let share = median(ours.iter().zip(bare).map(|(ours, bare)| 100.0 * ours / bare));
    table.row([
        way.to_owned(),
        format!("{:.0}", median(bare.iter().copied())),
        format!("{:.0}", median(ours.iter().copied())),
        format!("{share:.1} %"),
        format!("{goal} %"),
        verdict(share >= goal).to_owned(),
    ]);
}

/// Beside the library's own function on a thread of its own.
fn through_libvirt(runtime: &Runtime, table: &mut Table) -> Result<()> {
    let bed = Testbed::builder().hosts(1).guests(1).start()?;
    let host = bed.host("h1")?;
    let vm: Uuid = host.guest("vm1")?.uuid().parse()?;
    bare::use_our_event_loop()?;
    let connect = bare::open(&host.uri())?;
    let manager = TransportManager::new(TransportConfig::default());
    runtime.block_on(manager.add_host(HostInfo::from_uri("h", host.uri())))?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(by_library(&connect, vm)?);
        ours.push(runtime.block_on(
            manager.execute_on_host("h", |connection: LibvirtConnection| async move {
                rate(&LibvirtCarrier::new(&connection, vm)).await
            }),
        )?);
    }
    row(table, "libvirt", &bare, &ours, LIBVIRT_GOAL);
    runtime.block_on(manager.close(PATIENCE));
    bed.down().context("the testbed was not removed")
}

/// Beside a loop that writes a line and reads one, on the same runtime. Each has a QEMU of its own, for a QEMU serves
/// one client.
fn by_socket(runtime: &Runtime, table: &mut Table) -> Result<()> {
    let (theirs, own) = (Qemu::empty()?, Qemu::empty()?);
    let manager = TransportManager::with_connector(
        TransportConfig::default(),
        SocketConnector::new(SocketConfig::default()),
    );
    let uri = format!("qmp+unix://{}", own.monitor().display());
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        manager.add_host(HostInfo::from_uri("h", uri)).await?;
        let mut stream = BufStream::new(UnixStream::connect(theirs.monitor()).await?);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        ask(&mut stream, r#"{"execute":"qmp_capabilities"}"#, &mut line).await?;
        for _ in 0..ROUNDS {
            bare.push(by_hand(&mut stream).await?);
            let turn = manager.execute_on_host("h", |connection: SocketConnection| async move {
                rate(&SocketCarrier::new(&connection)).await
            });
            ours.push(turn.await?);
        }
        manager.close(PATIENCE).await;
        Ok::<_, anyhow::Error>(())
    })?;
    row(table, "QEMU's socket", &bare, &ours, SOCKET_GOAL);
    Ok(())
}

/// Calls a second over a carrier.
async fn rate(carrier: &impl Carrier) -> Result<f64, ProtocolError> {
    let start = Instant::now();
    let mut calls = 0_u32;
    while start.elapsed() < TURN {
        carrier.send(Channel::Monitor, QUERY, tokio::time::Instant::now() + PATIENCE).await?;
        calls += 1;
    }
    Ok(f64::from(calls) / start.elapsed().as_secs_f64())
}

fn by_library(connect: &Connect, vm: Uuid) -> Result<f64> {
    let domain = connect.lookup_domain_by_uuid(vm)?;
    let start = Instant::now();
    let mut calls = 0_u32;
    while start.elapsed() < TURN {
        domain.qemu_monitor_command(QUERY, 0)?;
        calls += 1;
    }
    Ok(f64::from(calls) / start.elapsed().as_secs_f64())
}

async fn by_hand(stream: &mut BufStream<UnixStream>) -> Result<f64> {
    let start = Instant::now();
    let (mut calls, mut line) = (0_u32, String::new());
    while start.elapsed() < TURN {
        ask(stream, QUERY, &mut line).await?;
        calls += 1;
    }
    Ok(f64::from(calls) / start.elapsed().as_secs_f64())
}

async fn ask(stream: &mut BufStream<UnixStream>, command: &str, line: &mut String) -> Result<()> {
    stream.write_all(command.as_bytes()).await?;
    stream.write_all(b"\n").await?;
    stream.flush().await?;
    line.clear();
    stream.read_line(line).await?;
    if line.contains("\"return\"") { Ok(()) } else { Err(anyhow!("QEMU answered {line:?}")) }
}
