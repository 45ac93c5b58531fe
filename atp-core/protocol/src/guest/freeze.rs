//! The guest's file systems at rest, for a snapshot or a copy of its disks (`guest-fsfreeze-freeze`, `-thaw`).
//!
//! While they are frozen every program in the guest that writes waits, and the agent refuses all but a few commands.
//! So [`with_frozen`] thaws whatever happens to the work in between, and never later than it was told to.

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

/// How a freeze is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreezePolicy {
    /// The longest the file systems are frozen; 30 s by default. Databases and watchdogs in the guest take no more.
    pub longest: Duration,
    /// How long thawing is tried for, over and over; 60 s by default.
    pub thaw_within: Duration,
    /// The pause between two tries; 200 ms by default.
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

/// Freezes the file systems mounted at these places, or all of them if none is named, and returns how many. Whoever
/// calls this has to [`thaw`].
///
/// # Errors
/// Whatever the carrier or the agent says. After an answer that was lost they may be frozen.
pub async fn freeze(carrier: &impl Carrier, mountpoints: &[String], deadline: Instant) -> Result<u64> {
    let count = if mountpoints.is_empty() {
        agent::execute(carrier, &qga::guest_fsfreeze_freeze {}, deadline).await
    } else {
        let command = qga::guest_fsfreeze_freeze_list { mountpoints: Some(mountpoints.to_vec()) };
        agent::execute(carrier, &command, deadline).await
    };
    Ok(count?.unsigned_abs())
}

/// Lets all file systems go on, and returns how many were frozen. Does nothing where none is.
///
/// # Errors
/// Whatever the carrier or the agent says.
pub async fn thaw(carrier: &impl Carrier, deadline: Instant) -> Result<u64> {
    Ok(agent::execute(carrier, &qga::guest_fsfreeze_thaw {}, deadline).await?.unsigned_abs())
}

/// Whether the agent has file systems frozen (`guest-fsfreeze-status`).
///
/// # Errors
/// Whatever the carrier or the agent says.
pub async fn frozen(carrier: &impl Carrier, deadline: Instant) -> Result<bool> {
    let status = agent::execute(carrier, &qga::guest_fsfreeze_status {}, deadline).await?;
    Ok(status == qga::GuestFsfreezeStatus::frozen)
}

/// Freezes file systems as [`freeze`] does, does the work, and thaws them.
///
/// They are thawed when the work has ended, when it has panicked, when this future is dropped, and when they have been
/// frozen for [`longest`](FreezePolicy::longest), whichever comes first. A task of its own does so, which owns the
/// carrier: only the end of the runtime or of the process, or a guest that cannot be reached for `thaw_within`, can keep
/// it from that.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// What freezing came to, and then the work was not done; [`ThawedEarly`](ProtocolError::ThawedEarly) if the work took
/// too long, whatever it came to; [`NotThawed`](ProtocolError::NotThawed) if thawing failed. The work's own result is
/// inside.
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
    // Dropped with this future, or by a panic of the work: then the task goes on as if told to.
    let (done, is_done) = oneshot::channel::<()>();
    let mountpoints = mountpoints.to_vec();
    let keeper = tokio::spawn(async move {
        let count = freeze(&carrier, &mountpoints, deadline).await;
        let failed = count.is_err();
        let sure = count.as_ref().err().is_some_and(|error| error.effect() == atp_transport::Effect::None);
        let until = after(policy.longest);
        // Nobody listens any more if the caller is gone.
        let _ = frozen.send(count);
        let in_time = failed || time::timeout_at(until, is_done).await.is_ok();
        if sure {
            return Ok(());
        }
        if let Err(source) = thaw_at_last(&carrier, policy).await {
            // Whoever wanted it may be gone, and then nobody else tells.
            tracing::error!(error = %source, "the file systems of a guest were frozen and could not be thawed");
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

/// What the task came to; a panic in it, which can only be the carrier's, goes on here.
fn ended(joined: std::result::Result<Result<()>, JoinError>) -> Result<()> {
    match joined.map_err(JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime shuts down, and nobody will look at this.
        Err(Err(_)) => Err(ProtocolError::Timeout { peer: Peer::Agent, sent: true }),
    }
}

async fn thaw_at_last(carrier: &impl Carrier, policy: FreezePolicy) -> Result<()> {
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
    async fn thawing_is_tried_until_it_succeeds() {
        let start = Instant::now();
        assert_eq!(with_replies(&[FROZEN, REFUSED, REFUSED, FROZEN]).await.unwrap(), "done");
        assert_eq!(start.elapsed(), FreezePolicy::default().thaw_pause * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_frozen_without_a_limit_is_thawed_all_the_same() {
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
    async fn a_guest_that_stays_frozen_is_not_passed_over() {
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
