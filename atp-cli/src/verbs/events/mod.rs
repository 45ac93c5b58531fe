//! `atp events`: streams VM events.

mod lines;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use atp_client::VmEvents;
use atp_executor::{Executor, LabelFilter, Names, Selection, Selector, Watch, WatchedVms};
use atp_settings::parse_duration;
use atp_transport::{HostId, TransportManager, WatchItem, WatchOptions};
use clap::Args;
use tokio::time::{Instant, sleep_until};

use self::lines::ItemWriter;
use super::stats;
use super::verb::Verb;
use crate::args::GlobalArgs;
use crate::completer;
use crate::context::Context;
use crate::exit::{MATCHED_NOTHING, SUCCESS, TARGETS_FAILED};
use crate::inventory::{self, CLOSE_TIMEOUT};
use crate::output::{Output, OutputFormat};
use crate::problem::{Failure, Problem};
use crate::remote;
use crate::signals::Interrupts;

/// The most hosts of which it is said why they were not watched.
const MOST_REASONS: usize = 8;

const EXAMPLES: &str = "\
Examples:
  atp events
  atp events 'web-*' --for 10m -o jsonl";

/// Stream VM events from all hosts
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EventsArgs {
    /// VMs whose events are shown, as [HOST/]VM; all VMs of all hosts by default. Hosts that no selector can match
    /// are not connected to
    #[arg(value_name = "SEL", add = completer::selectors())]
    selectors: Vec<Selector>,

    /// Exclude the VMs that this selects; may be repeated
    #[arg(long, value_name = "SEL", add = completer::selectors())]
    exclude: Vec<Selector>,

    /// Only VMs of hosts with this label; may be repeated, and then all must match
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<LabelFilter>,

    /// End after this many events; messages about states and connections are not counted
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,

    /// Also show the events of QEMU monitors
    #[arg(long)]
    qemu: bool,
}

impl Verb for EventsArgs {
    /// Options of runs over targets are refused, because they would have no effect.
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        let unfit = options.run_options();
        if unfit.is_empty() {
            return Ok(());
        }
        let problem = Problem::new(format!(
            "`atp events` is not a run over targets, and does not accept {}",
            unfit.join(", ")
        ));
        Err(problem.hint("--for and --count end the stream; --timeout is for hosts that do not answer"))
    }

    /// Streams events until stopped, or until the given number or time is reached.
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        if matches!(context.settings.output, OutputFormat::Csv | OutputFormat::Name) {
            let problem = Problem::new("events have the formats table, json and jsonl, not csv or name");
            return Err(problem.hint("use -o jsonl: one JSON object per line").into());
        }
        let interrupts = Interrupts::listen()?;
        let all = if self.selectors.is_empty() { Selection::all() } else { Selection::of(self.selectors) };
        let selection = Selection { exclude: self.exclude, labels: self.labels, ..all };
        let mut watch = Source::begin(&selection, self.qemu, context, &interrupts).await?;
        let mut unwatched: BTreeSet<HostId> = watch.watched().hosts().cloned().collect();
        if unwatched.is_empty() {
            context.console.problem(
                &Problem::new("no host is selected")
                    .hint("--exclude and --label remove hosts from the selection"),
            );
            return Ok(MATCHED_NOTHING);
        }

        let end = self.duration.map(|duration| Instant::now() + duration);
        let mut left = self.count;
        let timeout = context.settings.policy.timeout;
        let watch_by = Instant::now() + timeout;
        let (mut is_overdue, mut not_found, mut lost) = (false, 0, None);
        let (began, mut reasons) = (Instant::now(), HashMap::new());
        // What may be found: each VM that is named, and each glob, which is never not found.
        let counts = selection.selectors.iter().map(|selector| match selector.vm_names().len() {
            0 => 1,
            names => names * selector.host().ids().len().max(1),
        });
        let selected: usize = counts.sum();
        let mut output = Output::stdout();
        let mut writer = ItemWriter::new(context.settings.output);
        let signal = loop {
            tokio::select! {
                biased;
                signal = interrupts.first() => break Some(signal),
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => break None,
                () = sleep_until(watch_by), if !is_overdue && !unwatched.is_empty() => {
                    is_overdue = true;
                    let after = humantime::format_duration(timeout);
                    let hosts = Names(unwatched.iter().map(ToString::to_string).collect());
                    context.console.warning(&format!("not watched after {after}: {hosts}; attempts continue"));
                }
                item = watch.next() => {
                    let item = match item {
                        Ok(Some(item)) => item,
                        Ok(None) => break None,
                        Err(problem) => {
                            lost = Some(problem);
                            break None;
                        }
                    };
                    match &item {
                        WatchItem::Present { host, .. } => drop(unwatched.remove(host)),
                        WatchItem::Unreachable { host, error, .. } => {
                            reasons.insert(host.clone(), lines::reason(error));
                        }
                        _ => {}
                    }
                    writer.write(&item, &mut output);
                    let lacking = watch.watched().take_not_found();
                    if !lacking.is_empty() {
                        not_found += lacking.len();
                        context.console.problem(&stats::not_found(lacking));
                    }
                    if let (Some(left), WatchItem::Event { .. }) = (&mut left, &item) {
                        *left -= 1;
                    }
                }
            }
            // No more events can follow, or stdout was closed and there is nothing else to do.
            if left == Some(0) || not_found == selected || !output.is_open() {
                break None;
            }
        };
        let is_incomplete = output.is_open() && (not_found > 0 || !unwatched.is_empty() || lost.is_some());
        writer.finish(&mut output);
        watch.close().await;
        if let Some(problem) = &lost {
            context.console.problem(problem);
        }
        if is_incomplete && lost.is_none() && !unwatched.is_empty() && signal.is_none() {
            context.console.problem(&never_watched(&unwatched, &reasons, began.elapsed()));
        }
        let code = match output.end(&context.console) {
            SUCCESS if is_incomplete => TARGETS_FAILED,
            code => code,
        };
        Ok(signal.map_or(code, |signal| signal.exit_code()))
    }
}

/// Says that hosts were not watched for a moment in all this time, and why.
fn never_watched(hosts: &BTreeSet<HostId>, reasons: &HashMap<HostId, String>, in_all: Duration) -> Problem {
    let names = Names(hosts.iter().map(ToString::to_string).collect());
    let problem = Problem::new(format!("never watched: {names}"));
    let problem = hosts.iter().take(MOST_REASONS).fold(problem, |problem, host| {
        problem.cause(match reasons.get(host) {
            Some(reason) => format!("{host}: {reason}"),
            None => format!(
                "{host}: it had not answered yet when this ended, after {:.1} s",
                in_all.as_secs_f64()
            ),
        })
    });
    match hosts.iter().all(|host| reasons.contains_key(host)) {
        true => problem.hint("`atp doctor HOST` shows what is wrong"),
        false => problem.hint("allow more time (`--for`); `atp doctor HOST` shows what is wrong"),
    }
}

/// Where the events come from.
enum Source {
    /// From the hosts.
    Hosts(Box<Watch>, TransportManager),
    /// From a service.
    Service(Box<VmEvents>),
}

impl Source {
    async fn begin(
        selection: &Selection,
        qemu: bool,
        context: &Context,
        interrupts: &Interrupts,
    ) -> Result<Self, Failure> {
        if let Some(client) = remote::client(&context.settings)? {
            let hosts = tokio::select! {
                hosts = client.host_infos() => hosts.map_err(Problem::from)?,
                signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
            };
            let watched = WatchedVms::new(selection, hosts).map_err(Problem::from)?;
            return Ok(Source::Service(Box::new(client.vm_events(selection, watched, qemu))));
        }
        let options = WatchOptions { monitor_events: qemu, ..WatchOptions::default() };
        let manager = inventory::open_selected(selection, &context.settings, interrupts).await?;
        let watch = Executor::new(manager.clone()).watch(selection, &options);
        Ok(Source::Hosts(Box::new(watch.map_err(Problem::from)?), manager))
    }

    /// The next item. Cancel safe.
    async fn next(&mut self) -> Result<Option<WatchItem>, Problem> {
        match self {
            Source::Hosts(watch, _) => Ok(watch.next().await),
            Source::Service(watch) => watch.next().await.map_err(Problem::from),
        }
    }

    fn watched(&mut self) -> &mut WatchedVms {
        match self {
            Source::Hosts(watch, _) => watch.watched(),
            Source::Service(watch) => watch.watched(),
        }
    }

    async fn close(self) {
        if let Source::Hosts(watch, manager) = self {
            drop(watch);
            inventory::close(&manager, CLOSE_TIMEOUT).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_was_never_watched_has_a_reason() {
        let hosts: BTreeSet<HostId> = ["h1", "h2"].map(|id| id.parse().unwrap()).into();
        let mut reasons = HashMap::from([("h1".parse().unwrap(), "nobody listens".to_owned())]);
        let told = |reasons: &_| never_watched(&hosts, reasons, Duration::from_secs(2));
        let problem = told(&reasons);
        assert_eq!(problem.message, "never watched: h[1-2]");
        let late = "h2: it had not answered yet when this ended, after 2.0 s";
        assert_eq!(problem.causes, ["h1: nobody listens", late]);
        assert!(problem.hint.unwrap().contains("`--for`"));
        reasons.insert("h2".parse().unwrap(), "refused".to_owned());
        assert!(!told(&reasons).hint.unwrap().contains("`--for`"));
    }
}
