//! `atp events`: what happens to VMs, told as it happens.

use anyhow::Context as _;
use atp_executor::{Executor, Selection};
use atp_transport::{WatchItem, WatchOptions};
use tokio::time::{Instant, sleep_until};

use crate::args::{EventsArgs, OutputFormat};
use crate::commands::batch::FAREWELL;
use crate::commands::{Context, host};
use crate::exit::MATCHED_NOTHING;
use crate::inventory;
use crate::output::Output;
use crate::problem::{Failure, Problem};
use crate::render::events::Teller;
use crate::signals::Interrupts;

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
    let manager = tokio::select! {
        opened = inventory::open(&context.settings) => opened?,
        signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
    };
    let mut watch = Executor::new(manager.clone())
        .watch(&selection, &options)
        .map_err(|error| Problem::new(error.to_string()).hint(error.hint()))?;
    if watch.hosts() == 0 {
        context
            .console
            .problem(&Problem::new("no host is left to watch").hint("--exclude and --label take hosts away"));
        return Ok(MATCHED_NOTHING);
    }

    let end = args.duration.map(|duration| Instant::now() + duration);
    let mut left = args.count;
    let mut output = Output::stdout();
    let mut teller = Teller::new(context.settings.output);
    let signal = loop {
        tokio::select! {
            biased;
            signal = interrupts.first() => break Some(signal),
            () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => break None,
            item = watch.next() => {
                let Some(item) = item else { break None };
                teller.tell(&item, &mut output);
                if let (Some(left), WatchItem::Event { .. }) = (&mut left, &item) {
                    *left -= 1;
                }
            }
        }
        // Nobody reads any more, and there is nothing else to do.
        if left == Some(0) || !output.is_open() {
            break None;
        }
    };
    teller.finish(&mut output);
    drop(watch);
    let _ = tokio::time::timeout(FAREWELL, manager.close(FAREWELL)).await;
    let code = host::end(output, context);
    Ok(signal.map_or(code, |signal| signal.exit_code()))
}
