//! Freezes the guest's filesystems for a snapshot or a copy of its disks (`guest-fsfreeze-freeze`, `-thaw`).
//!
//! While they are frozen, every program in the guest that writes waits, and the agent refuses all but a few commands.
//! So [`with_frozen`] thaws them whatever happens to the work in between, and never later than its limit.

use std::time::Duration;

use qapi::qga;
use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio::time::{self, Instant};

use crate::agent;
use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::peer::Peer;
use crate::reserve::after;

/// The limits of a freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreezePolicy {
    /// The longest time that the filesystems are frozen; 30 s by default. Databases and watchdogs in the guest accept
    /// no more.
    pub longest: Duration,
    /// How long thawing is attempted; 60 s by default.
    pub thaw_within: Duration,
    /// The pause between two attempts; 200 ms by default.
    pub thaw_pause: Duration,
}

impl Default for FreezePolicy {
    fn default() -> Self {
        FreezePolicy {
            longest: Duration::from_secs(30),
            thaw_within: Duration::from_secs(60),
            thaw_pause: Duration::from_millis(200),
        }
    }
}

/// Freezes the filesystems mounted at these places, or all of them if the list is empty, and returns their number. The
/// caller has to [`thaw`] them.
///
/// # Errors
/// The error of the carrier or the agent. After a lost answer they may be frozen.
pub async fn freeze(carrier: &impl Carrier, mountpoints: &[String], deadline: Instant) -> Result<u64> {
    let count = if mountpoints.is_empty() {
        agent::execute(carrier, &qga::guest_fsfreeze_freeze {}, deadline).await
    } else {
        let command = qga::guest_fsfreeze_freeze_list { mountpoints: Some(mountpoints.to_vec()) };
        agent::execute(carrier, &command, deadline).await
    };
    Ok(count?.unsigned_abs())
}

/// Thaws all filesystems and returns how many were frozen. Does nothing if none is frozen.
///
/// # Errors
/// The error of the carrier or the agent.
pub async fn thaw(carrier: &impl Carrier, deadline: Instant) -> Result<u64> {
    Ok(agent::execute(carrier, &qga::guest_fsfreeze_thaw {}, deadline).await?.unsigned_abs())
}

/// Whether the agent has frozen filesystems (`guest-fsfreeze-status`).
///
/// # Errors
/// The error of the carrier or the agent.
pub async fn frozen(carrier: &impl Carrier, deadline: Instant) -> Result<bool> {
    let status = agent::execute(carrier, &qga::guest_fsfreeze_status {}, deadline).await?;
    Ok(status == qga::GuestFsfreezeStatus::frozen)
}

/// Freezes filesystems as [`freeze`] does, awaits the work, and thaws them.
///
/// They are thawed when the work ends, when it panics, when this future is dropped, or when they have been frozen for
/// [`longest`](FreezePolicy::longest), whichever comes first. A separate task, which owns the carrier, thaws them: only
/// the end of the runtime or of the process, or a guest that cannot be reached for `thaw_within`, can prevent it.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// The error of freezing, in which case the work was not started; [`ThawedEarly`](ProtocolError::ThawedEarly) if the
/// work took too long, whatever its result; [`NotThawed`](ProtocolError::NotThawed) if thawing failed. The result of
/// the work itself is inside the `Ok` value.
pub async fn with_frozen<C, T>(
    carrier: C,
    mountpoints: &[String],
    policy: FreezePolicy,
    deadline: Instant,
    work: impl Future<Output = T>,
) -> Result<T>
where
    C: Carrier + 'static,
{
    let (frozen, is_frozen) = oneshot::channel();
    // Dropped together with this future, or by a panic of the work: the task then continues as after a message.
    let (done, is_done) = oneshot::channel::<()>();
    let mountpoints = mountpoints.to_vec();
    let keeper = tokio::spawn(async move {
        let count = freeze(&carrier, &mountpoints, deadline).await;
        let failed = count.is_err();
        let sure = count.as_ref().err().is_some_and(|error| error.effect() == atp_transport::Effect::None);
        let until = after(policy.longest);
        // An error means that the caller has dropped its future.
        let _ = frozen.send(count);
        let in_time = failed || time::timeout_at(until, is_done).await.is_ok();
        if sure {
            return Ok(());
        }
        if let Err(source) = thaw_with_retries(&carrier, policy).await {
            // The caller may be gone, and then only this log entry reports it.
            tracing::error!(error = %source, "the filesystems of a guest were frozen and could not be thawed");
            return Err(ProtocolError::NotThawed { source: Box::new(source) });
        }
        if in_time { Ok(()) } else { Err(ProtocolError::ThawedEarly { after: policy.longest }) }
    });
    if let Ok(count) = is_frozen.await {
        count?;
        let result = work.await;
        drop(done);
        return ended(keeper.await).map(|()| result);
    }
    ended(keeper.await).and(Err(ProtocolError::Timeout { peer: Peer::Agent, sent: true }))
}

/// Returns the result of the task. A panic in it, which can only come from the carrier, is resumed here.
fn ended(joined: std::result::Result<Result<()>, JoinError>) -> Result<()> {
    match joined.map_err(JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down, so no caller sees this error.
        Err(Err(_)) => Err(ProtocolError::Timeout { peer: Peer::Agent, sent: true }),
    }
}

async fn thaw_with_retries(carrier: &impl Carrier, policy: FreezePolicy) -> Result<()> {
    let give_up = after(policy.thaw_within);
    loop {
        match thaw(carrier, give_up).await {
            Ok(_) => return Ok(()),
            Err(error) if after(policy.thaw_pause) >= give_up => return Err(error),
            Err(_) => time::sleep(policy.thaw_pause).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Script;

    const FROZEN: &str = r#"{"return":1}"#;
    const REFUSED: &str = r#"{"error":{"class":"GenericError","desc":"not now"}}"#;

    async fn with_replies(replies: &[&str]) -> Result<&'static str> {
        let script = Script::new(replies.iter().copied());
        let deadline = Instant::now() + Duration::from_secs(10);
        with_frozen(script, &[], FreezePolicy::default(), deadline, async { "done" }).await
    }

    #[tokio::test(start_paused = true)]
    async fn thawing_is_repeated_until_it_succeeds() {
        let start = Instant::now();
        assert_eq!(with_replies(&[FROZEN, REFUSED, REFUSED, FROZEN]).await.unwrap(), "done");
        assert_eq!(start.elapsed(), FreezePolicy::default().thaw_pause * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_freeze_without_a_limit_is_thawed() {
        let endless = Duration::MAX;
        let policy = FreezePolicy { longest: endless, thaw_within: endless, ..FreezePolicy::default() };
        let deadline = Instant::now() + Duration::from_secs(10);
        let script = Script::new([FROZEN, REFUSED, FROZEN]);
        with_frozen(script, &[], policy, deadline, async {}).await.unwrap();
        let policy = FreezePolicy { thaw_pause: endless, ..FreezePolicy::default() };
        let script = Script::new([FROZEN, REFUSED]);
        let error = with_frozen(script, &[], policy, deadline, async {}).await.unwrap_err();
        assert_eq!(error.kind(), "not-thawed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_stays_frozen_is_an_error() {
        let start = Instant::now();
        let error = with_replies(&[FROZEN, REFUSED]).await.unwrap_err();
        assert_eq!(
            (error.kind().as_str(), error.effect()),
            ("not-thawed", atp_transport::Effect::Done),
            "{error:?}"
        );
        assert!(error.hint().contains("guest-fsfreeze-thaw"), "{}", error.hint());
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("not now"));
        let policy = FreezePolicy::default();
        let tried_for = policy.thaw_within - policy.thaw_pause * 2..=policy.thaw_within;
        assert!(tried_for.contains(&start.elapsed()), "{:?}", start.elapsed());
    }
}
