//! The cost of a command to a VM: a call of a carrier compared with the same call written by hand, a program run in
//! the guest, and files copied into and out of the guest.
//!
//! Both sides of a comparison use the same path, over connections with the same keepalive, and parse the reply into
//! the type of the command.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use atp_protocol::exec::{self, ExecPolicy, Polling};
use atp_protocol::files::{Pull, Push, Source, TransferPolicy};
use atp_protocol::qapi::qmp::{StatusInfo, query_status};
use atp_protocol::socket::{SocketCarrier, SocketConfig, SocketConnection, SocketConnector};
use atp_protocol::{Carrier, ExecSpec, LibvirtCarrier, ProtocolError, guest, monitor};
use atp_testbed::{Qemu, Testbed};
use atp_transport::{HostInfo, LibvirtConnection, TransportConfig, TransportManager};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::task::spawn_blocking;
use uuid::Uuid;
use virt::domain::Domain;

use crate::table::{Table, verdict};
use crate::{bare, median};

/// The time of one turn of a side.
const TURN: Duration = Duration::from_millis(100);
const ROUNDS: usize = 61;
const QUERY: &str = r#"{"execute":"query-status"}"#;
/// The time limit of a call.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time limit of a file.
const FILE_PATIENCE: Duration = Duration::from_secs(60);

/// The goals: the minimum shares of the rates by hand, percent.
const LIBVIRT_GOAL: f64 = 95.0;
const SOCKET_GOAL: f64 = 90.0;

/// The number of runs of a program, and of the equivalent that is polled at a fixed interval.
const RUNS: usize = 41;
const FIXED: Duration = Duration::from_millis(100);

/// The size of the copied file, and the number of copies.
const FILE: usize = 4 << 20;
const FILES: usize = 5;
/// The maximum size of a write command to an agent through libvirt, and of a read.
const WRITTEN: usize = 98_208;
const READ: usize = 1 << 20;

/// Measures, and prints tables.
pub(crate) fn report() -> Result<()> {
    let runtime = Runtime::new()?;
    let bed = Testbed::builder().hosts(1).guests(1).start()?;
    let host = bed.host("h1")?;
    let vm: Uuid = host.guest("vm1")?.uuid().parse()?;
    bare::use_our_event_loop()?;
    let connect = bare::open(&host.uri())?;
    let domain = Arc::new(connect.lookup_domain_by_uuid(vm)?);
    let manager = TransportManager::new(TransportConfig::default());
    runtime.block_on(manager.add_host(HostInfo::from_uri("h", host.uri())))?;

    let mut calls = Table::new(["calls made by", "calls/s", "of the rate by hand", "goal", ""]);
    runtime.block_on(through_libvirt(&manager, &domain, vm, &mut calls))?;
    runtime.block_on(by_socket(&mut calls))?;
    calls.print(&format!(
        "`query-status` of one VM, one call after the other; median of {ROUNDS} rounds, each with a turn \
         of {} ms for each side:",
        TURN.as_millis()
    ));
    runtime.block_on(programs(&manager, vm))?;
    runtime.block_on(files(&manager, &domain, vm))?;
    runtime.block_on(manager.close(PATIENCE));
    bed.down().context("the testbed was not removed")
}

/// One side of a comparison.
struct Side {
    name: &'static str,
    figures: Vec<f64>,
    goal: Option<f64>,
}

impl Side {
    fn new(name: &'static str, goal: impl Into<Option<f64>>) -> Self {
        Side { name, figures: Vec::new(), goal: goal.into() }
    }

    fn share_of(&self, base: &Side) -> f64 {
        median(self.figures.iter().zip(&base.figures).map(|(own, base)| 100.0 * own / base))
    }
}

/// A row for each side, compared with the first.
fn rows(table: &mut Table, sides: &[Side]) {
    for side in sides {
        let share = side.share_of(&sides[0]);
        table.row([
            side.name.to_owned(),
            format!("{:.0}", median(side.figures.iter().copied())),
            format!("{share:.1} %"),
            side.goal.map_or_else(String::new, |goal| format!("{goal} %")),
            side.goal.map_or("", |goal| verdict(share >= goal)).to_owned(),
        ]);
    }
}

/// Compared with the library's own function. It blocks, so a task passes it to a thread and is woken by that, in any
/// program. The side with a thread of its own shows the cost of this.
async fn through_libvirt(
    manager: &TransportManager,
    domain: &Arc<Domain>,
    vm: Uuid,
    table: &mut Table,
) -> Result<()> {
    let mut sides = [
        Side::new("libvirt: bare `virt`, handed to a thread", None),
        Side::new("libvirt: `LibvirtCarrier`", LIBVIRT_GOAL),
        Side::new("libvirt: bare `virt`, in its own thread", None),
    ];
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut calls = 0_u32;
        while start.elapsed() < TURN {
            let domain = Arc::clone(domain);
            parsed(&spawn_blocking(move || domain.qemu_monitor_command(QUERY, 0)).await??)?;
            calls += 1;
        }
        sides[0].figures.push(rate(calls, start));
        let carried = manager.execute_on_host("h", |connection: LibvirtConnection| async move {
            by_carrier(&LibvirtCarrier::new(&connection, vm)).await
        });
        sides[1].figures.push(carried.await?);
        let domain = Arc::clone(domain);
        let own = spawn_blocking(move || {
            let start = Instant::now();
            let mut calls = 0_u32;
            while start.elapsed() < TURN {
                parsed(&domain.qemu_monitor_command(QUERY, 0)?)?;
                calls += 1;
            }
            Ok::<_, anyhow::Error>(rate(calls, start))
        });
        sides[2].figures.push(own.await??);
    }
    rows(table, &sides);
    Ok(())
}

/// Compared with a loop that writes a line, with an id as ours, and reads one, in the same runtime. Each has a QEMU
/// of its own, since a QEMU serves one client. The loop without an id shows the cost of the id.
async fn by_socket(table: &mut Table) -> Result<()> {
    let (theirs, own) = (Qemu::empty()?, Qemu::empty()?);
    let manager = TransportManager::with_connector(
        TransportConfig::default(),
        SocketConnector::new(SocketConfig::default()),
    );
    manager.add_host(HostInfo::from_uri("h", format!("qmp+unix://{}", own.monitor().display()))).await?;
    let mut theirs = Hand::greeted(UnixStream::connect(theirs.monitor()).await?).await?;
    let mut sides = [
        Side::new("QEMU's socket: a loop that writes and reads", None),
        Side::new("QEMU's socket: `SocketCarrier`", SOCKET_GOAL),
        Side::new("QEMU's socket: the loop, and no id in its commands", None),
    ];
    let mut id = 0_u64;
    for _ in 0..ROUNDS {
        let with_id = || {
            id += 1;
            format!(r#"{{"execute":"query-status","id":{id}}}"#)
        };
        sides[0].figures.push(theirs.rate(with_id).await?);
        sides[2].figures.push(theirs.rate(|| QUERY.to_owned()).await?);
        let carried = manager.execute_on_host("h", |connection: SocketConnection| async move {
            by_carrier(&SocketCarrier::new(&connection)).await
        });
        sides[1].figures.push(carried.await?);
    }
    manager.close(PATIENCE).await;
    rows(table, &sides);
    Ok(())
}

fn rate(calls: u32, start: Instant) -> f64 {
    f64::from(calls) / start.elapsed().as_secs_f64()
}

/// Calls per second over a carrier.
async fn by_carrier(carrier: &impl Carrier) -> Result<f64, ProtocolError> {
    let start = Instant::now();
    let mut calls = 0_u32;
    while start.elapsed() < TURN {
        monitor::execute(carrier, &query_status {}, soon(PATIENCE)).await?;
        calls += 1;
    }
    Ok(rate(calls, start))
}

fn soon(patience: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + patience
}

/// A monitor used by hand: a line is written, and one is read.
struct Hand {
    stream: BufStream<UnixStream>,
    line: String,
}

impl Hand {
    async fn greeted(stream: UnixStream) -> Result<Self> {
        let mut hand = Hand { stream: BufStream::new(stream), line: String::new() };
        hand.stream.read_line(&mut hand.line).await?;
        hand.ask(r#"{"execute":"qmp_capabilities"}"#).await?;
        Ok(hand)
    }

    async fn ask(&mut self, command: &str) -> Result<()> {
        self.stream.write_all(command.as_bytes()).await?;
        self.stream.write_all(b"\n").await?;
        self.stream.flush().await?;
        self.line.clear();
        self.stream.read_line(&mut self.line).await?;
        Ok(())
    }

    /// The calls per second of one turn.
    async fn rate(&mut self, mut command: impl FnMut() -> String) -> Result<f64> {
        let start = Instant::now();
        let mut calls = 0_u32;
        while start.elapsed() < TURN {
            self.ask(&command()).await?;
            parsed(&self.line)?;
            calls += 1;
        }
        Ok(rate(calls, start))
    }
}

/// Reads a reply to [`QUERY`] as its caller would.
fn parsed(reply: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Reply {
        #[serde(rename = "return")]
        status: StatusInfo,
    }
    let read: Reply = serde_json::from_str(reply).with_context(|| format!("QEMU answered {reply:?}"))?;
    black_box(read.status);
    Ok(())
}

/// A short program in the guest, polled at growing intervals, and at a fixed interval.
async fn programs(manager: &TransportManager, vm: Uuid) -> Result<()> {
    let fixed = Polling { first: FIXED, second: FIXED, factor: 1.0, longest: FIXED };
    let fixed = ExecPolicy { polling: fixed, ..ExecPolicy::default() };
    let measured = manager.execute_on_host("h", |connection: LibvirtConnection| async move {
        let carrier = LibvirtCarrier::new(&connection, vm);
        let spec = ExecSpec::new("true");
        let [mut pings, mut growing, mut steady] = [const { Vec::new() }; 3];
        for _ in 0..RUNS {
            let start = Instant::now();
            guest::ping(&carrier, soon(PATIENCE)).await?;
            guest::ping(&carrier, soon(PATIENCE)).await?;
            pings.push(millis(start));
            let start = Instant::now();
            exec::run(&carrier, &spec, soon(PATIENCE)).await?;
            growing.push(millis(start));
            let start = Instant::now();
            exec::run_with(&carrier, &spec, &fixed, soon(PATIENCE)).await?;
            steady.push(millis(start));
        }
        Ok::<_, ProtocolError>([pings, growing, steady])
    });
    let mut table = Table::new(["`true` in a guest", "ms"]);
    let names = [
        "two round trips to its agent alone (`guest-ping`)",
        "`exec::run`",
        "asked for its end every 100 ms",
    ];
    for (name, figures) in names.into_iter().zip(measured.await?) {
        table.row([name.to_owned(), format!("{:.1}", median(figures))]);
    }
    table.print(&format!("A short program, from its start to its result; median of {RUNS} runs, in turns:"));
    Ok(())
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// A file copied into the guest and out of it, compared with a bare loop of writes or reads of the same size.
async fn files(manager: &TransportManager, domain: &Arc<Domain>, vm: Uuid) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = Arc::new(Source::from_bytes("bench", vec![0; FILE], 0o600));
    let mut sides = [
        Side::new("writes of 96 KiB", None),
        Side::new("`Push`", None),
        Side::new("reads of 1 MiB", None),
        Side::new("`Pull`", None),
    ];
    for _ in 0..FILES {
        let by_hand = Arc::clone(domain);
        sides[0]
            .figures
            .push(speed(async move { spawn_blocking(move || write_all(&by_hand)).await? }).await?);
        let pushed = manager.execute_on_host("h", |connection: LibvirtConnection| {
            let source = Arc::clone(&source);
            async move {
                let carrier = LibvirtCarrier::new(&connection, vm);
                let mut push = Push::new(source, "/tmp/pushed", TransferPolicy::default());
                push.run(&carrier, soon(FILE_PATIENCE), &mut |_| {}).await
            }
        });
        sides[1].figures.push(speed(async { pushed.await.map(drop).map_err(Into::into) }).await?);
        let by_hand = Arc::clone(domain);
        sides[2].figures.push(speed(async move { spawn_blocking(move || read_all(&by_hand)).await? }).await?);
        let destination = folder.path().join("pulled");
        let pulled = manager.execute_on_host("h", |connection: LibvirtConnection| async move {
            let carrier = LibvirtCarrier::new(&connection, vm);
            let mut pull = Pull::new("/tmp/pushed", destination, TransferPolicy::default());
            pull.run(&carrier, soon(FILE_PATIENCE), &mut |_| {}).await
        });
        sides[3].figures.push(speed(async { pulled.await.map(drop).map_err(Into::into) }).await?);
    }
    let mut table = Table::new(["carried by", "MiB/s", "of the channel's own"]);
    for pair in sides.chunks(2) {
        for side in pair {
            table.row([
                side.name.to_owned(),
                format!("{:.2}", median(side.figures.iter().copied())),
                format!("{:.1} %", side.share_of(&pair[0])),
            ]);
        }
    }
    table.print(&format!(
        "{} MiB into a guest and out of a guest, through its agent; median of {FILES} rounds, in turns:",
        FILE >> 20
    ));
    Ok(())
}

/// The rate of work that copies [`FILE`] bytes, MiB per second.
async fn speed(work: impl Future<Output = Result<()>>) -> Result<f64> {
    let start = Instant::now();
    work.await?;
    Ok((FILE >> 20) as f64 / start.elapsed().as_secs_f64())
}

/// Writes a file in the guest, with commands of the maximum size.
fn write_all(domain: &Domain) -> Result<()> {
    let handle = opened(domain, "w")?;
    // Three zero bytes in base64.
    let command = |bytes: usize| {
        let zeros = "AAAA".repeat(bytes / 3);
        format!(r#"{{"execute":"guest-file-write","arguments":{{"handle":{handle},"buf-b64":"{zeros}"}}}}"#)
    };
    let full = command(WRITTEN);
    for _ in 0..FILE / WRITTEN {
        agent(domain, &full)?;
    }
    agent(domain, &command(FILE % WRITTEN))?;
    closed(domain, handle)
}

/// Reads the file.
fn read_all(domain: &Domain) -> Result<()> {
    let handle = opened(domain, "r")?;
    let command =
        format!(r#"{{"execute":"guest-file-read","arguments":{{"handle":{handle},"count":{READ}}}}}"#);
    for _ in 0..FILE / READ {
        agent(domain, &command)?;
    }
    closed(domain, handle)
}

fn opened(domain: &Domain, mode: &str) -> Result<i64> {
    #[derive(Deserialize)]
    struct Opened {
        #[serde(rename = "return")]
        handle: i64,
    }
    let command =
        format!(r#"{{"execute":"guest-file-open","arguments":{{"path":"/tmp/by-hand","mode":"{mode}"}}}}"#);
    let opened: Opened = serde_json::from_str(&agent(domain, &command)?)?;
    Ok(opened.handle)
}

fn closed(domain: &Domain, handle: i64) -> Result<()> {
    agent(domain, &format!(r#"{{"execute":"guest-file-close","arguments":{{"handle":{handle}}}}}"#)).map(drop)
}

fn agent(domain: &Domain, command: &str) -> Result<String> {
    let seconds = i32::try_from(PATIENCE.as_secs())?;
    Ok(domain.qemu_agent_command(command, seconds, 0)?)
}
