//! Scripted work.

use std::time::Duration;

use atp_executor::{Attempt, Completion, OutcomeError, Status};
use atp_transport::{Effect, ErrorKind};
use proptest::prelude::*;
use tokio::time::{sleep, sleep_until};

/// What the work on a target does, after a time in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    Finish(u64),
    Fail(u64),
    /// Fails without effect, so often that a retry may help, and then finishes.
    Flaky {
        after: u64,
        times: u32,
    },
    /// The same, but something may have happened.
    Uncertain(u64),
    Panic(u64),
    /// Ends by its deadline and says so, as the layers below do.
    TimeOut,
    /// Never ends, deadline or not.
    Hang,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Script {
    pub(crate) work: Work,
    /// When it sends something, if it does.
    pub(crate) sends_after: Option<u64>,
    /// How long it waits for the answer to a call, if it makes one first.
    pub(crate) answered_after: Option<u64>,
}

pub(crate) fn script() -> impl Strategy<Value = Script> {
    let work = prop_oneof![
        4 => (0_u64..12_000).prop_map(Work::Finish),
        2 => (0_u64..9_000).prop_map(Work::Fail),
        2 => (0_u64..4_000, 1_u32..4).prop_map(|(after, times)| Work::Flaky { after, times }),
        1 => (0_u64..9_000).prop_map(Work::Uncertain),
        1 => (0_u64..9_000).prop_map(Work::Panic),
        1 => Just(Work::TimeOut),
        1 => Just(Work::Hang),
    ];
    let answered_after = prop_oneof![3 => Just(None), 2 => (0_u64..12_000).prop_map(Some)];
    (work, prop::option::of(0_u64..10_000), answered_after)
        .prop_map(|(work, sends_after, answered_after)| Script { work, sends_after, answered_after })
}

/// Carries out the script, for the so-manieth time.
pub(crate) async fn act(script: Script, attempt: Attempt, time: u32) -> Completion {
    let act = async {
        match script.work {
            Work::Finish(after) => {
                wait(after).await;
                Completion::ok(Effect::Done, None)
            }
            Work::Fail(after) => {
                wait(after).await;
                failed(Effect::None, OutcomeError::new(ErrorKind::GuestError, "no"))
            }
            Work::Flaky { after, times } => {
                wait(after).await;
                if time > times {
                    Completion::ok(Effect::Done, None)
                } else {
                    failed(Effect::None, OutcomeError::new(ErrorKind::ConnectionLost, "for now").retryable())
                }
            }
            Work::Uncertain(after) => {
                wait(after).await;
                failed(Effect::Unknown, OutcomeError::new(ErrorKind::ConnectionLost, "for now").retryable())
            }
            Work::Panic(after) => {
                wait(after).await;
                panic!("boom");
            }
            Work::TimeOut => {
                sleep_until(attempt.deadline()).await;
                let error = OutcomeError::new(ErrorKind::CallTimeout, "late").retryable();
                Completion::failed(Status::Timeout, Effect::Unknown, error)
            }
            Work::Hang => std::future::pending().await,
        }
    };
    let send = async {
        if let Some(after) = script.sends_after {
            wait(after).await;
            attempt.mark_sent().await;
        }
        std::future::pending::<()>().await;
    };
    let unanswered = attempt.unanswered().clone();
    let call = async {
        if let Some(after) = script.answered_after {
            let _call = unanswered.sent();
            wait(after).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = call => unreachable!("waiting never ends"),
        () = send => unreachable!("sending never ends"),
        completion = act => completion,
    }
}

async fn wait(millis: u64) {
    sleep(Duration::from_millis(millis)).await;
}

fn failed(effect: Effect, error: OutcomeError) -> Completion {
    Completion::failed(Status::Failed, effect, error)
}
