//! `atp top`: what VMs use, live, on a terminal.

mod draw;
mod screen;
mod view;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::Context as _;
use atp_executor::{Selection, Selector};
use clap::Args;
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt as _;

use self::screen::Screen;
use self::view::View;
use super::stats::{not_found, parse_interval};
use super::verb::Verb;
use crate::args::{GlobalArgs, NarrowArgs};
use crate::completer;
use crate::context::Context;
use crate::exit::{SUCCESS, TARGETS_FAILED};
use crate::problem::{Failure, Problem};
use crate::sampling::Opened;
use crate::signals::Interrupts;

const EXAMPLES: &str = "\
Examples:
  atp top
  atp top '@rack-2/*' --interval 5s

Keys:
  q, Esc, Ctrl-C     leave
  Up, Down, PgUp, …  move
  Left, Right        sort by another column
  r                  reverse the order
  /                  show only what a selector matches; Enter applies it, an empty one shows all
  h                  show or hide the hosts";

/// Show the CPU, memory, disk and network use of VMs, live
///
/// A VM or host that does not answer is marked stale and delays no other
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TopArgs {
    /// VMs to show, as [HOST/]VM; all VMs of all hosts by default
    #[arg(value_name = "SEL", add = completer::selectors())]
    selectors: Vec<Selector>,
    #[command(flatten)]
    narrow: NarrowArgs,

    /// The time between two measurements
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_interval)]
    interval: Duration,
}

impl Verb for TopArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        let mut unfit = options.run_options();
        unfit.extend(options.output.is_some().then_some("--output"));
        if unfit.is_empty() {
            return Ok(());
        }
        let problem =
            Problem::new(format!("`atp top` is a live view, and does not accept {}", unfit.join(", ")));
        Err(problem.hint("`atp stats` measures once, or for some time, in several formats"))
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            let problem = Problem::new("`atp top` needs a terminal for its input and its output");
            return Err(problem.hint("`atp stats --count 0` measures until it is stopped").into());
        }
        if context.verbosity > 0 && io::stderr().is_terminal() {
            let problem = Problem::new("-v would write the log over the screen of `atp top`");
            return Err(problem.hint("redirect stderr to a file: 2> atp.log").into());
        }
        let interrupts = Interrupts::listen()?;
        let all = if self.selectors.is_empty() { Selection::all() } else { Selection::of(self.selectors) };
        let selection = self.narrow.narrow(all);
        let opened = Opened::open(selection, self.interval, context, &interrupts).await?;
        let (mut sampling, hosts, manager) = opened.split();
        let mut view = View::new(hosts);
        let mut screen = Screen::enter().context("the terminal cannot be set up").map_err(Failure::Bug)?;
        let mut events = EventStream::new();
        // Rounds are taken by a task of their own, so that keys are answered while one is under way.
        let (rounds, mut next) = tokio::sync::mpsc::channel(1);
        let task = tokio::spawn(async move {
            loop {
                let round = sampling.next().await;
                let is_last = round.is_err();
                let round = round.map(|round| (round, sampling.take_not_found()));
                if rounds.send(round).await.is_err() || is_last {
                    return;
                }
            }
        });
        let (mut failed, mut lacking, mut is_first) = (None, Vec::new(), true);
        let result = loop {
            if let Err(error) = screen.draw(&mut view) {
                break Err(error);
            }
            tokio::select! {
                biased;
                signal = interrupts.first() => break Ok(signal.exit_code()),
                event = events.next() => match event {
                    Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                        if is_end(&view, key) {
                            break Ok(SUCCESS);
                        }
                        view.key(key.code);
                    }
                    // A resize draws anew.
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break Err(error),
                    None => break Ok(SUCCESS),
                },
                round = next.recv() => match round {
                    Some(Ok((round, not_found))) => {
                        lacking.extend(not_found);
                        // A host that does not answer is to be seen, and a VM may be away for a while.
                        let all_answer = round.hosts.iter().all(|host| host.stale.is_none());
                        let is_nothing = is_first && all_answer && round.vms.is_empty() && !lacking.is_empty();
                        is_first = false;
                        view.take(round);
                        if is_nothing {
                            break Ok(SUCCESS);
                        }
                    }
                    Some(Err(problem)) => {
                        failed = Some(problem);
                        break Ok(SUCCESS);
                    }
                    None => break Err(io::Error::other("the measurements ended")),
                },
            }
        };
        task.abort();
        drop(events);
        drop(screen);
        Opened::close(manager).await;
        if let Some(problem) = failed {
            return Err(problem.into());
        }
        let code = result.context("the terminal cannot be used").map_err(Failure::Bug)?;
        if lacking.is_empty() {
            return Ok(code);
        }
        context.console.problem(&not_found(lacking));
        Ok(if code == SUCCESS { TARGETS_FAILED } else { code })
    }
}

/// Whether the key ends the view. While a selector is typed, only Ctrl-C does.
fn is_end(view: &View, key: KeyEvent) -> bool {
    let is_ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    is_ctrl_c || !view.is_typing() && matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}
