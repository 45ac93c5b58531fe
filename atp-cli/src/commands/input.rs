//! `atp key`, `atp type`, `atp mouse`: what someone would do who sat at the VM.

use std::time::Duration;

use atp_executor::{KeySpec, MouseSpec, Operation};
use atp_protocol::input::{KeyTiming, MouseAction, MouseTiming};

use crate::args::{KeyArgs, MouseArgs, TypeArgs};
use crate::batch;
use crate::commands::selection;
use crate::context::Context;
use crate::problem::{Failure, Problem};

pub(crate) async fn key(args: KeyArgs, context: &Context) -> Result<u8, Failure> {
    check_hold(args.hold, context)?;
    let spec = KeySpec { chords: args.chords, timing: KeyTiming { hold: args.hold } };
    batch::run(selection(args.targets), Operation::Key(spec), context).await
}

pub(crate) async fn text(args: TypeArgs, context: &Context) -> Result<u8, Failure> {
    check_hold(args.hold, context)?;
    let mut text = args.text.join(" ");
    if args.enter {
        text.push('\n');
    }
    let spec = KeySpec::of_text(&text, args.layout).map_err(|error| {
        Problem::new(error.to_string())
            .hint("choose the guest's own layout with --layout, or leave the character out")
    })?;
    let spec = KeySpec { timing: KeyTiming { hold: args.hold }, ..spec };
    batch::run(selection(args.targets), Operation::Type(spec), context).await
}

pub(crate) async fn mouse(args: MouseArgs, context: &Context) -> Result<u8, Failure> {
    check_hold(args.hold, context)?;
    let action = MouseAction::from_words(&args.action).map_err(|error| {
        Problem::new(error.to_string()).hint("`atp mouse --help` shows how an action is written")
    })?;
    let timing = MouseTiming { hold: args.hold, ..MouseTiming::default() };
    batch::run(selection(args.targets), Operation::Mouse(MouseSpec { action, timing }), context).await
}

/// No key can be held for longer than its VM has time.
fn check_hold(hold: Duration, context: &Context) -> Result<(), Problem> {
    let timeout = context.settings.policy.timeout;
    if hold < timeout {
        return Ok(());
    }
    let [hold, timeout] = [hold, timeout].map(humantime::format_duration);
    let problem =
        Problem::new(format!("--hold {hold} leaves no time within --timeout {timeout}; nothing was done"));
    Err(problem.hint("hold for less, or give more time (`--timeout`)"))
}
