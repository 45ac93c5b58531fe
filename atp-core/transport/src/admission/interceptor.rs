//! A chain around each call: a program's own logging, limits and tests.
//!
//! Interceptors are asked in the order in which they were added before a call stands in line to be sent, and told
//! of its end in the reverse order. They are plain functions that must not block: what they cost, each call costs.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, sleep_until};

use crate::admission::calls::Lane;
use crate::error::{Result, TransportError};
use crate::host::HostId;

/// A call about to be made, or made.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CallInfo<'a> {
    /// The host it goes to.
    pub host: &'a HostId,
    /// The operation, by libvirt's name for it.
    pub operation: &'static str,
    /// The VM's lane it stands in, if it goes to a VM.
    pub lane: Option<Lane>,
    /// The [`connection_id`](crate::HostConnection::connection_id) of its connection.
    pub connection: u64,
    /// Which try of the work it belongs to, from 1.
    pub attempt: u32,
    /// When it was asked for.
    pub asked: Instant,
    /// When it has to be done.
    pub deadline: Instant,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallDecision {
    /// It goes on.
    Proceed,
    /// It goes on at that time. When that is past its deadline, it fails at once with
    /// [`TransportError::RateLimited`].
    DelayUntil(Instant),
    /// It fails with [`TransportError::Refused`], for this reason.
    Refuse(String),
}

/// Something around each call to any host of a manager; see [`TransportManager::add_interceptor`].
///
/// For each call that an interceptor admitted, exactly one of `after`, `on_error` and `on_abandon` is called. One that
/// panics is passed over: the panic is logged and counted, and the call goes on.
///
/// ```
/// use std::borrow::Cow;
/// use atp_transport::{CallInfo, HostInfo, Interceptor, TransportConfig, TransportManager, CallDecision};
///
/// /// Keeps a test from changing anything.
/// struct ReadOnly;
///
/// impl Interceptor for ReadOnly {
///     fn name(&self) -> Cow<'_, str> {
///         "read-only".into()
///     }
///
///     fn before(&self, call: &CallInfo<'_>) -> CallDecision {
///         match call.operation {
///             "virDomainDestroy" => CallDecision::Refuse("this is a rehearsal".to_owned()),
///             _ => CallDecision::Proceed,
///         }
///     }
/// }
///
/// let manager = TransportManager::new(TransportConfig::default()).with_interceptor(ReadOnly);
/// ```
///
/// [`TransportManager::add_interceptor`]: crate::TransportManager::add_interceptor
pub trait Interceptor: Send + Sync + 'static {
    /// What it is called in errors and in the log.
    fn name(&self) -> Cow<'_, str>;

    /// Asked before the call is made.
    fn before(&self, call: &CallInfo<'_>) -> CallDecision {
        let _any = call;
        CallDecision::Proceed
    }

    /// The call was answered, `took` after it was asked for.
    fn after(&self, call: &CallInfo<'_>, took: Duration) {
        let _all = (call, took);
    }

    /// The call failed, or was refused by an interceptor behind this one.
    fn on_error(&self, call: &CallInfo<'_>, took: Duration, error: &TransportError) {
        let _all = (call, took, error);
    }

    /// The caller went away before the end of the call.
    fn on_abandon(&self, call: &CallInfo<'_>, took: Duration) {
        let _all = (call, took);
    }
}

/// The interceptors of a manager.
#[derive(Default)]
pub(crate) struct Interceptors {
    chain: ArcSwap<Vec<Arc<dyn Interceptor>>>,
    panics: AtomicU64,
}

/// A call on its way through the chain. The interceptors that admitted it are called when it ends or is dropped.
pub(crate) struct Passage<'a> {
    call: CallInfo<'a>,
    chain: Arc<Vec<Arc<dyn Interceptor>>>,
    /// How many let it go.
    passed: usize,
    panics: &'a AtomicU64,
}

impl Interceptors {
    pub(crate) fn add(&self, interceptor: Arc<dyn Interceptor>) {
        self.chain.rcu(|chain| {
            let mut longer = Vec::clone(chain);
            longer.push(interceptor.clone());
            longer
        });
    }

    /// Panics of interceptors so far.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Takes a call through the chain, and then through `last`; none if no interceptor is to be called at its end.
    ///
    /// Cancel safe.
    pub(crate) async fn admit<'a>(
        &'a self,
        call: CallInfo<'a>,
        last: &dyn Interceptor,
    ) -> Result<Option<Passage<'a>>> {
        let chain = self.chain.load_full();
        let mut passage = None;
        if !chain.is_empty() {
            let passage = passage.insert(Passage { call, chain, passed: 0, panics: &self.panics });
            while let Some(interceptor) = passage.chain.get(passage.passed) {
                if let Err(error) = pass(&**interceptor, &call, &self.panics).await {
                    passage.failed(&error);
                    return Err(error);
                }
                passage.passed += 1;
            }
        }
        if let Err(error) = pass(last, &call, &self.panics).await {
            if let Some(passage) = &mut passage {
                passage.failed(&error);
            }
            return Err(error);
        }
        Ok(passage)
    }
}

/// Asks one interceptor, and waits if it says so.
async fn pass(interceptor: &dyn Interceptor, call: &CallInfo<'_>, panics: &AtomicU64) -> Result<()> {
    let (by, host, operation) = (|| name_of(interceptor), || call.host.clone(), call.operation);
    match contained(interceptor, panics, || interceptor.before(call)) {
        None | Some(CallDecision::Proceed) => Ok(()),
        Some(CallDecision::Refuse(reason)) => {
            Err(TransportError::Refused { host: host(), operation, by: by(), reason })
        }
        Some(CallDecision::DelayUntil(at)) if at > call.deadline => {
            let wait = at.saturating_duration_since(Instant::now());
            Err(TransportError::RateLimited { host: host(), operation, by: by(), wait })
        }
        Some(CallDecision::DelayUntil(at)) => {
            sleep_until(at).await;
            Ok(())
        }
    }
}

/// Runs a hook; none if it panicked.
fn contained<T>(interceptor: &dyn Interceptor, panics: &AtomicU64, hook: impl FnOnce() -> T) -> Option<T> {
    // Nothing of ours is half-changed by it, and what an interceptor shares between its hooks is its own affair.
    catch_unwind(AssertUnwindSafe(hook)).map_or_else(
        |_| {
            panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                interceptor = name_of(interceptor),
                "an interceptor panicked; the call continues"
            );
            None
        },
        Some,
    )
}

/// Its name, unless that is what panics.
fn name_of(interceptor: &dyn Interceptor) -> String {
    catch_unwind(AssertUnwindSafe(|| interceptor.name().into_owned()))
        .unwrap_or_else(|_| "an interceptor".to_owned())
}

impl Passage<'_> {
    /// The call has come to its end.
    pub(crate) fn ended<T>(mut self, result: &Result<T>) {
        match result {
            Ok(_) => self.notify(|interceptor, call, took| interceptor.after(call, took)),
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: &TransportError) {
        self.notify(|interceptor, call, took| interceptor.on_error(call, took, error));
    }

    fn notify(&mut self, hook: impl Fn(&dyn Interceptor, &CallInfo<'_>, Duration)) {
        let took = self.call.asked.elapsed();
        for interceptor in self.chain[..std::mem::take(&mut self.passed)].iter().rev() {
            contained(&**interceptor, self.panics, || hook(&**interceptor, &self.call, took));
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.notify(|interceptor, call, took| interceptor.on_abandon(call, took));
    }
}
