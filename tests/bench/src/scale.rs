//! `atp` on fleets of different sizes, up to ten thousand hosts: what it takes that some VMs hang, and how a listing compares with
//! `virsh`. The hosts are simulated, in this process; `atp` and `virsh` are processes of their own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use atp_fleet::{Fleet, FleetOptions};
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

use crate::peers::commands::binary;
use crate::peers::processes::{cpu_of_the_ended, peak_memory};
use crate::peers::virsh::xargs;
use crate::table::{Table, verdict};

const SIZES: [u32; 4] = [10, 100, 1_000, 10_000];
const TIMEOUT: Duration = Duration::from_secs(20);
/// The hosts and their VMs that are listed, and how many `virsh` are started at once.
const LISTED: (u32, u32) = (1_000, 20);
const AT_ONCE: usize = 64;

/// What an `atp` process did.
struct Ran {
    wall: Duration,
    cpu: Duration,
    peak_kib: u64,
    /// By status: how long each target took from its start, ms.
    took: BTreeMap<String, Vec<u64>>,
}

impl Ran {
    fn count(&self, status: &str) -> usize {
        self.took.get(status).map_or(0, Vec::len)
    }

    /// The 99th percentile of those that answered, ms.
    fn p99(&self) -> u64 {
        let mut took = self.took.get("ok").cloned().unwrap_or_default();
        took.sort_unstable();
        took.get(took.len() * 99 / 100).copied().unwrap_or_default()
    }
}

/// Measures, and prints the tables.
pub(crate) fn report() -> Result<()> {
    let runtime = Runtime::new()?;
    executions(&runtime)?;
    listings(&runtime)
}

fn executions(runtime: &Runtime) -> Result<()> {
    let mut table = Table::new([
        "hosts",
        "hung",
        "parallel",
        "ok",
        "timeout",
        "unreachable",
        "s",
        "CPU, s",
        "MiB",
        "p99, ms",
        "of none hung",
        "goal",
        "",
    ]);
    for hosts in SIZES {
        let most = hosts.to_string();
        let whole = exec(runtime, hosts, "refused=1%", &most)?;
        add(&mut table, hosts, "0 %", &most, &whole, None);
        for parallel in [most.as_str(), "64"] {
            let some_hung = exec(runtime, hosts, "refused=1%,hung=5%", parallel)?;
            let compared = (parallel == most).then_some(&whole);
            add(&mut table, hosts, "5 %", parallel, &some_hung, compared);
        }
    }
    table.print(&format!(
        "`atp exec '*' -- true` on hosts with a VM each, of which 1 % refuse connections, with a time limit of {} s. p99 is of the \
         time from `started` to the outcome of those that answer:",
        TIMEOUT.as_secs()
    ));
    Ok(())
}

fn add(table: &mut Table, hosts: u32, hung: &str, parallel: &str, ran: &Ran, none_hung: Option<&Ran>) {
    let ratio = none_hung.map(|whole| ran.p99() as f64 / whole.p99().max(1) as f64);
    table.row([
        hosts.to_string(),
        hung.to_owned(),
        parallel.to_owned(),
        ran.count("ok").to_string(),
        ran.count("timeout").to_string(),
        ran.count("unreachable").to_string(),
        format!("{:.1}", ran.wall.as_secs_f64()),
        format!("{:.2}", ran.cpu.as_secs_f64()),
        format!("{:.0}", ran.peak_kib as f64 / 1024.0),
        ran.p99().to_string(),
        ratio.map(|ratio| format!("{ratio:.2} ×")).unwrap_or_default(),
        ratio.map(|_| "≤ 1.5 ×".to_owned()).unwrap_or_default(),
        ratio.map(|ratio| verdict(ratio <= 1.5).to_owned()).unwrap_or_default(),
    ]);
}

fn exec(runtime: &Runtime, hosts: u32, faults: &str, parallel: &str) -> Result<Ran> {
    let options = FleetOptions { hosts, faults: faults.parse()?, seed: 7, ..FleetOptions::default() };
    let fleet = runtime.block_on(Fleet::start(options))?;
    let timeout = format!("{}s", TIMEOUT.as_secs());
    let words = ["-o", "jsonl", "--parallel", parallel, "--timeout", &timeout, "exec", "*", "--", "true"];
    let ran = atp(&settings(&fleet)?, &words)?;
    let outcomes: usize = ran.took.values().map(Vec::len).sum();
    ensure!(outcomes == hosts as usize, "{outcomes} outcomes of {hosts} hosts");
    Ok(ran)
}

fn listings(runtime: &Runtime) -> Result<()> {
    let (hosts, vms) = LISTED;
    let options = FleetOptions { hosts, vms, ..FleetOptions::default() };
    let fleet = runtime.block_on(Fleet::start(options))?;
    let file = settings(&fleet)?;
    let ran = atp(&file, &["-o", "jsonl", "vm", "list"])?;
    ensure!(ran.count("ok") == (hosts * vms) as usize, "{} VMs listed", ran.count("ok"));
    let mut table = Table::new(["by", "s", "CPU, s", "MiB", "time of the first"]);
    let mut add = |by: &str, wall: Duration, cpu: Duration, peak_kib: u64| {
        table.row([
            by.to_owned(),
            format!("{:.2}", wall.as_secs_f64()),
            format!("{:.2}", cpu.as_secs_f64()),
            format!("{:.0}", peak_kib as f64 / 1024.0),
            format!("{:.1} ×", wall.as_secs_f64() / ran.wall.as_secs_f64()),
        ]);
    };
    add("`atp vm list`", ran.wall, ran.cpu, ran.peak_kib);
    let lines: String = fleet.hosts().map(|host| format!("--connect {} list --all\n", host.uri())).collect();
    let (cpu, start) = (cpu_of_the_ended()?, Instant::now());
    let (peak_kib, done) = peak_memory(|| xargs(AT_ONCE, &lines, &["virsh", "--quiet"]));
    done?;
    add(
        &format!("`xargs -P {AT_ONCE} virsh list --all`"),
        start.elapsed(),
        cpu_of_the_ended()? - cpu,
        peak_kib,
    );
    table.print(&format!("A listing of {hosts} hosts with {vms} VMs each, once:"));
    Ok(())
}

fn settings(fleet: &Fleet) -> Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile()?;
    file.write_all(fleet.settings().as_bytes())?;
    Ok(file)
}

/// Runs `atp` with these hosts, and reads its outcomes. That some targets fail is expected.
fn atp(settings: &NamedTempFile, words: &[&str]) -> Result<Ran> {
    let (cpu, start) = (cpu_of_the_ended()?, Instant::now());
    let (peak_kib, output) = peak_memory(|| run(settings.path(), words));
    let (wall, output) = (start.elapsed(), output?);
    let mut took: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in output.lines() {
        let outcome: serde_json::Value = serde_json::from_str(line)?;
        let status = outcome["status"].as_str().context("an outcome without a status")?;
        let ms = outcome["duration_ms"].as_u64().context("an outcome without its time")?;
        took.entry(status.to_owned()).or_default().push(ms);
    }
    Ok(Ran { wall, cpu: cpu_of_the_ended()? - cpu, peak_kib, took })
}

fn run(settings: &Path, words: &[&str]) -> Result<String> {
    let mut command = Command::new(binary()?);
    command.args(["--quiet", "--yes", "--engine", "native", "--config"]).arg(settings).args(words);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run atp")?;
    Ok(String::from_utf8(output.stdout)?)
}
