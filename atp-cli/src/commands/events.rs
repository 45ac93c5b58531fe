//! `atp events`: what happens to VMs, told as it happens.

use std::collections::BTreeSet;

use anyhow::Context as _;
use atp_executor::{Executor, Names, Selection};
use atp_transport::{ErrorKind, HostId, WatchItem, WatchOptions};
use tokio::time::{Instant, sleep_until};

use crate::args::{EventsArgs, GlobalArgs};
use crate::context::Context;
use crate::exit::{MATCHED_NOTHING, SUCCESS, TARGETS_FAILED};
use crate::inventory::{self, CLOSE_TIMEOUT};
use crate::output::Output;
use crate::output::OutputFormat;
use crate::problem::{Failure, Problem};
use crate::render::events::Teller;
use crate::signals::Interrupts;

/// Whether options were given that are of runs over targets.
///
/// # Errors
/// Which: an option that nothing heeds would promise what is not kept.
pub(crate) fn check(global: &GlobalArgs) -> Result<(), Problem> {
    let unfit = global.run_options();
    if unfit.is_empty() {
        return Ok(());
    }
    let problem =
        Problem::new(format!("`atp events` is no run over targets, and does not take {}", unfit.join(", ")));
    Err(problem.hint("--for and --count end it; --timeout is for hosts that do not answer"))
}

/// Tells until it is stopped, or has told enough.
pub(crate) async fn run(args: EventsArgs, context: &Context) -> Result<u8, Failure> {
    if matches!(context.settings.output, OutputFormat::Csv | OutputFormat::Name) {
        let problem = Problem::new("events are told as table, json or jsonl, not as csv or name");
        return Err(problem.hint("use -o jsonl: one object a line, as it happens").into());
    }
    let interrupts = Interrupts::listen().context("signals cannot be listened to").map_err(Failure::Bug)?;
    let all = if args.selectors.is_empty() { Selection::all() } else { Selection::of(args.selectors) };
    let selection = Selection { exclude: args.exclude, labels: args.labels, ..all };
    let options = WatchOptions { monitor_events: args.qemu, ..WatchOptions::default() };
    let settings = inventory::with_passwords(&selection, &context.settings, &interrupts).await?;
    let manager = tokio::select! {
        opened = inventory::open(&settings) => opened?,
        signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
    };
    let mut watch = Executor::new(manager.clone())
        .watch(&selection, &options)
        .map_err(|error| Problem::new(error.to_string()).hint(error.hint()))?;
    let mut unwatched: BTreeSet<HostId> = watch.hosts().cloned().collect();
    if unwatched.is_empty() {
        context
            .console
            .problem(&Problem::new("no host is left to watch").hint("--exclude and --label take hosts away"));
        return Ok(MATCHED_NOTHING);
    }

    let end = args.duration.map(|duration| Instant::now() + duration);
    let mut left = args.count;
    let timeout = context.settings.policy.timeout;
    let patience = Instant::now() + timeout;
    let (mut is_overdue, mut not_found) = (false, 0);
    let mut output = Output::stdout();
    let mut teller = Teller::new(context.settings.output);
    let signal = loop {
        tokio::select! {
            biased;
            signal = interrupts.first() => break Some(signal),
            () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => break None,
            () = sleep_until(patience), if !is_overdue && !unwatched.is_empty() => {
                is_overdue = true;
                let after = humantime::format_duration(timeout);
                let hosts = Names(unwatched.iter().map(ToString::to_string).collect());
                context.console.warning(&format!("not watched after {after}: {hosts}; they are tried on"));
            }
            item = watch.next() => {
                let Some(item) = item else { break None };
                if let WatchItem::Present { host, .. } = &item {
                    unwatched.remove(host);
                }
                teller.tell(&item, &mut output);
                for selector in watch.take_not_found() {
                    not_found += 1;
                    context.console.problem(&Problem::new(format!("no VM is named '{selector}'")).hint(ErrorKind::VmNotFound.hint()));
                }
                if let (Some(left), WatchItem::Event { .. }) = (&mut left, &item) {
                    *left -= 1;
                }
            }
        }
        // There is nothing that could still be told; or nobody reads any more, and there is nothing else to do.
        if left == Some(0) || not_found == selection.selectors.len() || !output.is_open() {
            break None;
        }
    };
    let is_incomplete = output.is_open() && (not_found > 0 || !unwatched.is_empty());
    teller.finish(&mut output);
    drop(watch);
    inventory::close(&manager, CLOSE_TIMEOUT).await;
    if is_incomplete && !unwatched.is_empty() && signal.is_none() {
        let hosts = Names(unwatched.iter().map(ToString::to_string).collect());
        let hint = "`atp doctor HOST` says what is wrong on the way there";
        context.console.problem(&Problem::new(format!("never watched: {hosts}")).hint(hint));
    }
    let code = match output.end(&context.console) {
        SUCCESS if is_incomplete => TARGETS_FAILED,
        code => code,
    };
    Ok(signal.map_or(code, |signal| signal.exit_code()))
}
