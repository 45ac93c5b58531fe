//! `atp console`: what VMs write to their serial consoles, in files and line by line.

use std::path::PathBuf;

use atp_executor::{ConsoleReport, ConsoleSpec, Data, Operation, Outcome};
use clap::Args;

use super::verb::Run;
use crate::args::TargetArgs;
use crate::batch::Batch;
use crate::context::Context;
use crate::output::OutputFormat;
use crate::problem::{Failure, Problem};
use crate::render::Forms;
use crate::render::table::{NOTHING, Rows, status, time, vm};

const EXAMPLES: &str = "\
Examples:
  atp console 'web-*' -d consoles --timeout 10m
  atp console 'node7/' --follow --timeout 1h";

/// Capture the serial consoles of VMs, in files or line by line
///
/// The capture ends after --timeout, or when it is interrupted (Ctrl-C). It goes on when a VM restarts and when the connection
/// to its host is lost; a mark shows where output is missing. Kernel panics, oopses, hung tasks, lockups and processes that were
/// killed for lack of memory are counted.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConsoleArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// The folder for the consoles, which are HOST/VM.log in it. Existing files are replaced
    #[arg(short, long, value_name = "DIR", required_unless_present = "follow")]
    directory: Option<PathBuf>,

    /// Show each line as it is written, with the VM's name before it
    #[arg(short, long)]
    follow: bool,

    /// Take the consoles from other clients, such as `virsh console`
    #[arg(long)]
    force: bool,

    /// The alias of the console in the VMs' definitions, such as serial1; the first console by default
    #[arg(long, value_name = "ALIAS")]
    device: Option<String>,
}

impl Run for ConsoleArgs {
    async fn batch(self, context: &Context) -> Result<Batch, Failure> {
        use OutputFormat::{Jsonl, Table};
        if self.follow && !matches!(context.settings.output, Table | Jsonl) {
            let problem = Problem::new("--follow has the formats table and jsonl");
            return Err(problem.hint("use -o jsonl, or -d DIR without --follow").into());
        }
        let spec = ConsoleSpec {
            folder: self.directory,
            lines: self.follow,
            force: self.force,
            device: self.device,
        };
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::Console(spec),
            dry_run: would_capture,
            forms: Forms::new(consoles, &["file", "bytes", "lines", "gaps", "faults"]),
        })
    }
}

fn would_capture(operation: &Operation) -> Vec<String> {
    let Operation::Console(spec) = operation else { return Vec::new() };
    let folder =
        spec.folder.as_ref().map(|folder| format!("console would write: {}/HOST/VM.log", folder.display()));
    folder.into_iter().collect()
}

fn consoles(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "RESULT", "FILE", "LINES", "GAPS", "FAULTS", "TIME"]);
    for outcome in outcomes {
        let report = match &outcome.data {
            Some(Data::Console(report)) => Some(report),
            _ => None,
        };
        let or_nothing = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
        let file = report.and_then(|report| report.file.as_ref());
        rows.add_outcome(
            outcome,
            &[
                vm(outcome),
                &status(outcome),
                &or_nothing(file.map(|file| file.to_string_lossy().into_owned())),
                &or_nothing(report.map(|report| report.lines.to_string())),
                &or_nothing(report.map(|report| report.gaps.to_string())),
                &or_nothing(report.map(|report| faults(report))),
                &time(outcome),
            ],
        );
    }
    rows.finish()
}

/// The faults by their names, with the number of each that came more than once.
fn faults(report: &ConsoleReport) -> String {
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for fault in report.first_faults.iter().map(|found| found.fault.as_str()) {
        match counts.iter_mut().find(|(name, _)| *name == fault) {
            Some((_, count)) => *count += 1,
            None => counts.push((fault, 1)),
        }
    }
    let more = report.faults.saturating_sub(report.first_faults.len() as u64);
    let names = counts.iter().map(|(name, count)| match count {
        1 => (*name).to_owned(),
        count => format!("{count} {name}"),
    });
    let more = (more > 0).then(|| format!("{more} more"));
    let all: Vec<_> = names.chain(more).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use atp_executor::{KernelFault, KernelFinding};

    use super::*;

    #[test]
    fn faults_are_named_and_counted() {
        let found = |fault| KernelFinding { fault, at_ms: 0, line: String::new() };
        let report = |first: &[KernelFault], faults| ConsoleReport {
            first_faults: first.iter().copied().map(found).collect(),
            faults,
            ..ConsoleReport::default()
        };
        assert_eq!(faults(&report(&[], 0)), "none");
        let some = [KernelFault::Oops, KernelFault::Panic, KernelFault::Oops];
        assert_eq!(faults(&report(&some, 3)), "2 oops, panic");
        assert_eq!(faults(&report(&some, 8)), "2 oops, panic, 5 more");
    }
}
