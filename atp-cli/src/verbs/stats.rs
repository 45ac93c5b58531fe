//! `atp stats`.

use std::borrow::Cow;
use std::time::Duration;

use anstyle::Style;
use atp_executor::{Folded, StatisticsRound, VmStatistics};
use atp_settings::parse_duration;
use atp_transport::ErrorKind;
use clap::Args;

use super::verb::Verb;
use crate::args::{GlobalArgs, TargetArgs};
use crate::context::Context;
use crate::exit::{MATCHED_NOTHING, SUCCESS, TARGETS_FAILED};
use crate::json;
use crate::output::{Output, OutputFormat};
use crate::problem::{Failure, Problem};
use crate::render::csv;
use crate::render::table::{NOTHING, Rows, size};
use crate::sampling::Opened;
use crate::signals::Interrupts;
use crate::terminal::{WARNING, line};
use crate::units;

const EXAMPLES: &str = "\
Examples:
  atp stats 'web-*'
  atp stats '*' --interval 5s --count 12 -o csv";

/// Measure the CPU, memory, disk and network use of VMs
///
/// Rates are over the interval. A VM or host that does not answer is marked stale and delays no other
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// The time over which rates are measured
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_interval)]
    interval: Duration,

    /// Measure so many intervals; 0 measures until Ctrl-C
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u64,
}

/// The shortest interval: more often would be load and no news.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Reads an interval.
pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    if interval < MIN_INTERVAL {
        return Err(format!("an interval has at least {} ms", MIN_INTERVAL.as_millis()));
    }
    Ok(interval)
}

impl Verb for StatsArgs {
    /// Options of runs over targets are refused, because they would have no effect.
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        let unfit = options.run_options();
        if unfit.is_empty() {
            return Ok(());
        }
        let unfit = unfit.join(", ");
        let problem =
            Problem::new(format!("`atp stats` is not a run over targets, and does not accept {unfit}"));
        Err(problem.hint("--interval and --count say how long it takes"))
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let format = context.settings.output;
        if format == OutputFormat::Name {
            let problem = Problem::new("statistics have the formats table, json, jsonl and csv, not name");
            return Err(problem.hint("use -o table").into());
        }
        let interrupts = Interrupts::listen()?;
        let selection = self.targets.selection();
        let opened = Opened::open(selection, self.interval, context, &interrupts).await?;
        let (mut sampling, _, manager) = opened.split();
        let mut output = Output::stdout();
        let mut writer = RoundWriter { format, rounds: 0 };
        let (mut left, mut is_first, mut not_found) = (self.count, true, false);
        let (mut last, mut failed) = (None, false);
        let signal = loop {
            let round = tokio::select! {
                biased;
                signal = interrupts.first() => break Some(signal),
                round = sampling.next() => match round {
                    Ok(round) => round,
                    // It is refused.
                    Err(problem) if is_first => return Err(problem.into()),
                    Err(problem) => {
                        failed = true;
                        context.console.problem(&problem);
                        break None;
                    }
                },
            };
            let lacking = sampling.take_not_found();
            if !lacking.is_empty() {
                not_found = true;
                context.console.problem(&self::not_found(lacking));
            }
            // The first has no rates, and is shown only if nothing else will be.
            let has_any = !round.vms.is_empty();
            if !is_first {
                writer.write(&round, &mut output);
                left = left.saturating_sub(1);
            }
            let is_over = !is_first && self.count > 0 && left == 0 || is_first && !has_any && not_found;
            is_first = false;
            last = Some(round);
            if is_over || !output.is_open() {
                break None;
            }
        };
        writer.finish(&mut output);
        Opened::close(manager).await;
        let (mut is_incomplete, mut has_any) = (not_found || failed, false);
        if let Some(round) = &last {
            has_any = !round.vms.is_empty() || round.hosts.iter().any(|host| host.stale.is_some());
            for (name, stale) in stale(round) {
                is_incomplete = true;
                let problem = Problem::new(format!("{name}: stale: {}", line(&stale.error.message)));
                context.console.problem(&match stale.error.hint.clone() {
                    Some(hint) => problem.hint(hint),
                    None => problem,
                });
            }
        }
        let code = match output.end(&context.console) {
            SUCCESS if is_incomplete => TARGETS_FAILED,
            SUCCESS if last.is_some() && !has_any => {
                context.console.problem(&Problem::new("no VM is selected"));
                MATCHED_NOTHING
            }
            code => code,
        };
        Ok(signal.map_or(code, |signal| signal.exit_code()))
    }
}

/// Says that VMs that are selected by name are on none of their hosts.
pub(super) fn not_found(names: Vec<String>) -> Problem {
    let problem = Problem::new(format!("no VM is named '{}'", Folded::of(names)));
    problem.hint(ErrorKind::VmNotFound.hint())
}

/// What is stale: hosts, and VMs of hosts that answer.
fn stale(round: &StatisticsRound) -> impl Iterator<Item = (String, &atp_api::Staleness)> {
    let silent = |host| round.hosts.iter().any(|other| other.host == host && other.stale.is_some());
    let hosts = round.hosts.iter().filter_map(|host| Some((host.host.to_string(), host.stale.as_ref()?)));
    let vms = round.vms.iter().filter(move |vm| !silent(vm.host.clone()));
    hosts.chain(vms.filter_map(|vm| Some((format!("{}/{}", vm.host, line(&vm.vm)), vm.stale.as_ref()?))))
}

/// Writes rounds in one format.
struct RoundWriter {
    format: OutputFormat,
    rounds: u64,
}

impl RoundWriter {
    fn write(&mut self, round: &StatisticsRound, output: &mut Output) {
        let is_first = self.rounds == 0;
        self.rounds += 1;
        match self.format {
            OutputFormat::Json => {
                let before = if is_first { "[\n" } else { ",\n" };
                output.write(&format!("{before}{}", json::compact(round)));
            }
            OutputFormat::Jsonl => output.write(&json::line(round)),
            OutputFormat::Csv => {
                if is_first {
                    output.write(&csv::row(COLUMNS.iter().map(|&name| name.into())));
                }
                round.vms.iter().for_each(|vm| output.write(&csv_row(round.at_ms, vm)));
            }
            OutputFormat::Table | OutputFormat::Name => {
                let between = if is_first { "" } else { "\n" };
                output.write(&format!("{between}{}", table(round)));
            }
        }
    }

    fn finish(&self, output: &mut Output) {
        if self.format == OutputFormat::Json {
            output.write(if self.rounds > 0 { "\n]\n" } else { "[]\n" });
        }
    }
}

fn table(round: &StatisticsRound) -> String {
    let mut rows =
        Rows::new(&["HOST", "VM", "STATE", "CPU", "MEMORY", "READ", "WRITE", "RECEIVED", "SENT", "STALE"]);
    for vm in &round.vms {
        let style = if vm.stale.is_some() { WARNING } else { Style::new() };
        let cells = cells(vm);
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        rows.add(style, &cells);
    }
    for host in round.hosts.iter().filter(|host| !round.vms.iter().any(|vm| vm.host == host.host)) {
        if let Some(stale) = &host.stale {
            let kind = stale.error.kind.as_str();
            let cells =
                [&[host.host.as_str(), NOTHING, kind][..], &[NOTHING; 6], &["never answered"]].concat();
            rows.add(WARNING, &cells);
        }
    }
    rows.finish()
}

/// A VM's values as they are shown to people.
pub(super) fn cells(vm: &VmStatistics) -> [String; 10] {
    let (read, write) = vm.disk_rates();
    let (rx, tx) = vm.network_rates();
    let memory = vm.memory.resident_kib.or(vm.memory.current_kib).filter(|_| vm.state.is_active());
    [
        vm.host.to_string(),
        vm.vm.clone(),
        vm.state.to_string(),
        units::percent(vm.cpu.percent),
        size(memory),
        units::rate(read),
        units::rate(write),
        units::rate(rx),
        units::rate(tx),
        vm.stale.as_ref().map_or_else(|| NOTHING.to_owned(), since),
    ]
}

/// For how long values are old.
pub(super) fn since(stale: &atp_api::Staleness) -> String {
    match stale.for_ms {
        Some(ms) => format!("{} s", ms.div_ceil(1000)),
        None => "never answered".to_owned(),
    }
}

/// The columns of CSV. Rates and counters are the sums of all disks, and of all interfaces.
const COLUMNS: [&str; 18] = [
    "at_ms",
    "host",
    "vm",
    "uuid",
    "state",
    "stale_ms",
    "error_kind",
    "vcpus",
    "cpu_time_ns",
    "cpu_percent",
    "memory_kib",
    "resident_kib",
    "usable_kib",
    "read_bytes_per_second",
    "write_bytes_per_second",
    "rx_bytes_per_second",
    "tx_bytes_per_second",
    "disks",
];

fn csv_row(at_ms: u64, vm: &VmStatistics) -> String {
    fn text<T: ToString>(value: Option<T>) -> Cow<'static, str> {
        value.map(|value| value.to_string()).unwrap_or_default().into()
    }
    let rate = |value: Option<f64>| text(value.map(|value| format!("{value:.1}")));
    let (read, write) = vm.disk_rates();
    let (rx, tx) = vm.network_rates();
    let stale = vm.stale.as_ref();
    csv::row(
        [
            at_ms.to_string().into(),
            vm.host.as_str().into(),
            vm.vm.as_str().into(),
            vm.uuid.to_string().into(),
            vm.state.as_str().into(),
            text(stale.and_then(|stale| stale.for_ms)),
            stale.map_or("", |stale| stale.error.kind.as_str()).into(),
            text(vm.cpu.vcpus),
            text(vm.cpu.time_ns),
            rate(vm.cpu.percent),
            text(vm.memory.current_kib),
            text(vm.memory.resident_kib),
            text(vm.memory.usable_kib),
            rate(read),
            rate(write),
            rate(rx),
            rate(tx),
            vm.disks.len().to_string().into(),
        ]
        .into_iter(),
    )
}

#[cfg(test)]
mod tests {
    use atp_api::{CpuUse, HostStatistics, InterfaceUse, MemoryUse, OutcomeError, Staleness};
    use atp_transport::domain::DomainState;

    use super::*;

    fn vm(name: &str, stale: Option<Staleness>) -> VmStatistics {
        let interface = |rate| InterfaceUse { rx_bytes_per_second: Some(rate), ..InterfaceUse::default() };
        VmStatistics {
            host: "h1".parse().unwrap(),
            vm: name.to_owned(),
            uuid: Default::default(),
            state: DomainState::Running,
            reason: None,
            stale,
            cpu: CpuUse { vcpus: Some(2), time_ns: Some(7), percent: Some(150.26) },
            memory: MemoryUse { current_kib: Some(1024), resident_kib: Some(512), ..MemoryUse::default() },
            disks: Vec::new(),
            interfaces: vec![interface(1024.0), interface(512.0)],
        }
    }

    fn round() -> StatisticsRound {
        let error = OutcomeError::new(ErrorKind::CallTimeout, "m");
        let stale = |for_ms| Some(Staleness { for_ms, error: error.clone() });
        StatisticsRound {
            at_ms: 1,
            took_ms: 2,
            hosts: vec![
                HostStatistics { host: "h1".parse().unwrap(), stale: None },
                HostStatistics { host: "h2".parse().unwrap(), stale: stale(None) },
            ],
            vms: vec![vm("a\x1b[2J", None), vm("b", stale(Some(4200)))],
        }
    }

    #[test]
    fn a_table_marks_what_is_stale() {
        let text = anstream::adapter::strip_str(&table(&round())).to_string();
        assert_eq!(
            text,
            "HOST  VM        STATE         CPU     MEMORY   READ  WRITE  RECEIVED   SENT  STALE\n\
             h1    a\\x1b[2J  running       150.3%  512 KiB  -     -      1.5 KiB/s  -     -\n\
             h1    b         running       150.3%  512 KiB  -     -      1.5 KiB/s  -     5 s\n\
             h2    -         call-timeout  -       -        -     -      -          -     never answered\n"
        );
    }

    #[test]
    fn csv_has_a_row_for_each_vm() {
        assert_eq!(
            csv_row(1, &round().vms[1]),
            "1,h1,b,00000000-0000-0000-0000-000000000000,running,4200,call-timeout,2,7,150.3,1024,512,,,,1536.0,,0\n"
        );
        assert_eq!(COLUMNS.len(), csv_row(1, &round().vms[0]).split(',').count());
    }

    #[test]
    fn hosts_that_do_not_answer_are_named_once() {
        let round = round();
        let names: Vec<_> = stale(&round).map(|(name, _)| name).collect();
        assert_eq!(names, ["h2", "h1/b"]);
    }

    #[test]
    fn an_interval_has_a_least_length() {
        assert_eq!(parse_interval("1s"), Ok(Duration::from_secs(1)));
        assert!(parse_interval("99ms").is_err() && parse_interval("0s").is_err());
    }
}
