//! What the events of a host tell of a restart: when they begin to arrive, and whether it has happened.

use std::future::pending;

use atp_api::Policy;
use atp_transport::domain::{DomainEventKind, DomainInfo, LifecycleChange};
use atp_transport::{HostId, TransportError, WatchItem};
use futures_util::future::ready;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::look::Seen;

/// Of the time that is left, watching may take one part in so many to begin, so that the rest is enough to send the
/// request and see its result.
const WATCH_SHARE: u32 = 2;

/// Why it is not known whether a VM has restarted that had not when it was looked at.
const NOT_YET: &str = "it had not restarted at the last check";

/// How a restart ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RestartEnd {
    Restarted,
    /// The VM stopped instead.
    Stopped,
    /// No restart was seen in time, and its event cannot have been lost.
    Late,
    /// The event of the restart may have been lost. This is why a look at the VM does not tell either.
    Unseen(String),
}

/// Waits until the host is watched. Fails if it cannot be reached, and if it is not watched in its share of the time.
pub(super) async fn wait_for_watch(
    events: &mut (impl Stream<Item = WatchItem> + Unpin),
    host: &HostId,
    deadline: Instant,
) -> Result<(), TransportError> {
    let began = Instant::now();
    let share = deadline.saturating_duration_since(began) / WATCH_SHARE;
    let watched = async {
        while let Some(item) = events.next().await {
            match item {
                WatchItem::Present { .. } => return Ok(()),
                WatchItem::Removed { .. } => break,
                WatchItem::Unreachable { error: source, .. } => {
                    return Err(TransportError::Connect { host: host.clone(), source });
                }
                _ => {}
            }
        }
        Err(TransportError::Closed { host: host.clone() })
    };
    let late = || TransportError::CallTimeout {
        host: host.clone(),
        operation: "virConnectDomainEventRegisterAny",
        after: began.elapsed(),
        sent: false,
    };
    timeout_at(began + share, watched).await.unwrap_or_else(|_| Err(late()))
}

/// What has arrived by now, without the events: they are of what happened before the request.
pub(super) fn before_the_request(events: &mut (impl Stream<Item = WatchItem> + Unpin)) -> Vec<WatchItem> {
    let arrived = std::iter::from_fn(|| events.next().now_or_never().flatten());
    arrived.filter(|item| !matches!(item, WatchItem::Event { .. })).collect()
}

/// Waits until an event reports that the VM has restarted or stopped. If events may have been lost, it looks at the VM as
/// well, with growing pauses, until a look tells or nothing can be missing any more.
pub(super) async fn wait_for_end<F: Future<Output = Seen>>(
    events: &mut (impl Stream<Item = WatchItem> + Unpin),
    domain: &DomainInfo,
    deadline: Instant,
    policy: &Policy,
    mut look: impl FnMut() -> F,
) -> RestartEnd {
    // Events of other VMs must not interrupt a look.
    let is_other =
        |item: &WatchItem| matches!(item, WatchItem::Event { event, .. } if event.uuid != domain.uuid);
    let mut events = events.filter(|item| ready(!is_other(item)));
    let not_looked = || "it was not checked since".to_owned();
    // Why it is not known whether the event was lost, if it may have been.
    let mut unknown: Option<String> = None;
    // Whether the host is watched now, so that an event of what happens from now on arrives.
    let mut is_watched = true;
    let mut pause = policy.poll_initial;
    loop {
        let looked = async {
            if unknown.is_none() {
                return pending().await;
            }
            sleep(pause).await;
            look().await
        };
        let item = tokio::select! {
            biased;
            item = events.next() => item,
            seen = looked => {
                pause = (pause * 2).min(policy.poll_max);
                match seen {
                    Seen::Restarted => return RestartEnd::Restarted,
                    Seen::Stopped => return RestartEnd::Stopped,
                    // The host was watched before the look began: the item that said so would have interrupted it.
                    Seen::NotYet if is_watched => unknown = None,
                    Seen::NotYet => unknown = Some(NOT_YET.to_owned()),
                    Seen::Unclear(why) => unknown = Some(why),
                    Seen::CannotTell(why) => return RestartEnd::Unseen(why),
                }
                continue;
            }
            () = sleep_until(deadline) => return unknown.map_or(RestartEnd::Late, RestartEnd::Unseen),
        };
        match item {
            Some(WatchItem::Event { event, .. }) => match event.kind {
                DomainEventKind::Reboot => return RestartEnd::Restarted,
                DomainEventKind::Lifecycle { change: LifecycleChange::Stopped, .. } => {
                    return RestartEnd::Stopped;
                }
                _ => {}
            },
            Some(WatchItem::Present { .. }) => is_watched = true,
            Some(WatchItem::Gap { .. }) => {
                (unknown, is_watched) = (Some(not_looked()), false);
                pause = policy.poll_initial;
            }
            Some(WatchItem::Missed { .. }) => {
                // A gap may be among what was missed.
                (unknown, is_watched) = (Some(not_looked()), false);
                pause = policy.poll_initial;
            }
            Some(WatchItem::Removed { .. }) | None => {
                return RestartEnd::Unseen("the host was removed in the meantime".to_owned());
            }
            // `Unreachable`: looks fail as well then, and say why.
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use atp_transport::domain::{DomainEvent, DomainState};
    use atp_transport::{ConnectError, Effect, ErrorKind};
    use futures_util::stream;
    use uuid::Uuid;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn domain(n: u128) -> DomainInfo {
        let domain = DomainInfo::new(format!("vm{n}"), Uuid::from_u128(n), DomainState::Running);
        DomainInfo { id: Some(4), ..domain }
    }

    fn host() -> HostId {
        "h1".parse().unwrap()
    }

    fn gap() -> WatchItem {
        WatchItem::Gap { host: host(), at: SystemTime::now() }
    }

    fn present() -> WatchItem {
        WatchItem::Present { host: host(), at: SystemTime::now(), domains: vec![domain(7), domain(1)].into() }
    }

    fn event(vm: u128, kind: DomainEventKind) -> WatchItem {
        let event = DomainEvent { name: format!("vm{vm}"), uuid: Uuid::from_u128(vm), kind };
        WatchItem::Event { host: host(), at: SystemTime::now(), event }
    }

    /// These items, each so long after the one before, and then no more.
    fn items_of(
        items: impl IntoIterator<Item = (Duration, WatchItem), IntoIter: Send + 'static>,
    ) -> Pin<Box<dyn Stream<Item = WatchItem> + Send>> {
        Box::pin(stream::unfold(items.into_iter(), |mut items| async move {
            let Some((after, item)) = items.next() else { return pending().await };
            sleep(after).await;
            Some((item, items))
        }))
    }

    /// How the restart of VM 1 ends, after what time, and after how many looks, each of 100 ms. The looks return `seen` one
    /// after the other, and the last of them from then on.
    async fn ended(
        items: impl IntoIterator<Item = (Duration, WatchItem), IntoIter: Send + 'static>,
        seen: &[Seen],
    ) -> (RestartEnd, Duration, usize) {
        let (began, mut looks) = (Instant::now(), 0);
        let (mut items, domain, policy) = (items_of(items), domain(1), Policy::default());
        let ended = wait_for_end(&mut items, &domain, began + MINUTE, &policy, || {
            let seen = seen[looks.min(seen.len() - 1)].clone();
            looks += 1;
            async move {
                sleep(SECOND / 10).await;
                seen
            }
        });
        let ended = ended.await;
        (ended, began.elapsed(), looks)
    }

    fn unclear() -> Seen {
        Seen::Unclear("no agent".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn what_happened_before_the_request_is_not_its_restart() {
        let now = [event(1, DomainEventKind::Reboot), gap(), event(7, DomainEventKind::Reboot), present()];
        let later = (SECOND, event(1, DomainEventKind::Reboot));
        let mut items = stream::iter(now).chain(items_of([later]));
        let before = before_the_request(&mut items);
        assert!(matches!(before[..], [WatchItem::Gap { .. }, WatchItem::Present { .. }]), "{before:?}");
        let began = Instant::now();
        let (mut items, policy) = (stream::iter(before).chain(items), Policy::default());
        let ended =
            wait_for_end(&mut items, &domain(1), began + MINUTE, &policy, || async { Seen::NotYet }).await;
        assert_eq!((ended, began.elapsed()), (RestartEnd::Restarted, SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_gap_events_tell_and_nothing_is_looked_at() {
        let stopped =
            DomainEventKind::Lifecycle { change: LifecycleChange::Stopped, detail: "destroyed".into() };
        for (kind, expected) in
            [(DomainEventKind::Reboot, RestartEnd::Restarted), (stopped, RestartEnd::Stopped)]
        {
            let items = [(SECOND, event(7, DomainEventKind::Reboot)), (SECOND, event(1, kind))];
            assert_eq!(ended(items, &[Seen::Restarted]).await, (expected, SECOND * 2, 0));
        }
        let items = [(SECOND, event(7, DomainEventKind::Reboot)), (SECOND, present())];
        assert_eq!(ended(items, &[Seen::Restarted]).await, (RestartEnd::Late, MINUTE, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_in_a_gap_is_seen_by_a_look() {
        for items in [
            vec![(SECOND, gap()), (SECOND, present())],
            // Also when the events cannot be had again, or were too many.
            vec![(SECOND, gap())],
            vec![(SECOND, WatchItem::Missed { count: 3 })],
        ] {
            for (sees, expected) in
                [(Seen::Restarted, RestartEnd::Restarted), (Seen::Stopped, RestartEnd::Stopped)]
            {
                let (ended, took, looks) = ended(items.clone(), &[unclear(), unclear(), sees]).await;
                assert_eq!(ended, expected);
                assert!(looks >= 3 && took < SECOND * 5, "{looks} looks, {took:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_after_a_gap_is_seen_by_its_event() {
        let items = || {
            vec![(SECOND, gap()), (SECOND * 5, present()), (SECOND * 30, event(1, DomainEventKind::Reboot))]
        };
        let (ended_as, took, looks) = ended(items(), &[Seen::NotYet]).await;
        assert_eq!((ended_as, took), (RestartEnd::Restarted, SECOND * 36));
        // As long as the host is not watched it may restart after any look; then one more look is enough.
        assert!((5..15).contains(&looks), "{looks} looks");
        let last = items().len() - 1;
        let (ended, took, looks_without) = ended(items().into_iter().take(last), &[Seen::NotYet]).await;
        assert_eq!((ended, took, looks_without), (RestartEnd::Late, MINUTE, looks));
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_may_be_among_what_was_missed() {
        let missed = || vec![(SECOND, WatchItem::Missed { count: 3 })];
        let sees = [Seen::NotYet, Seen::NotYet, Seen::Restarted];
        assert_eq!(ended(missed(), &sees).await.0, RestartEnd::Restarted);
        let unseen = (RestartEnd::Unseen(NOT_YET.to_owned()), MINUTE);
        let (ended_as, took, _) = ended(missed(), &[Seen::NotYet]).await;
        assert_eq!((ended_as, took), unseen);
        // The list of the VMs says that the host is watched.
        let items = missed().into_iter().chain([(SECOND * 5, present())]);
        assert_eq!(ended(items, &[Seen::NotYet]).await.0, RestartEnd::Late);
    }

    #[tokio::test(start_paused = true)]
    async fn if_looks_cannot_tell_the_wait_ends_before_the_deadline() {
        let items = [(SECOND, gap()), (SECOND, present())];
        let (ended_as, took, _) = ended(items.clone(), &[Seen::CannotTell("no /proc".to_owned())]).await;
        assert_eq!(ended_as, RestartEnd::Unseen("no /proc".to_owned()));
        assert!(took < SECOND * 3, "{took:?}");
        let (late, took, _) = ended(items, &[unclear()]).await;
        assert_eq!((late, took), (RestartEnd::Unseen("no agent".to_owned()), MINUTE));
        let removed = WatchItem::Removed { host: host(), at: SystemTime::now() };
        assert!(matches!(ended([(SECOND, removed)], &[unclear()]).await.0, RestartEnd::Unseen(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn events_of_other_vms_do_not_prevent_looks() {
        let others = std::iter::repeat_with(|| (SECOND / 100, event(7, DomainEventKind::Reboot)));
        let items = [(SECOND, gap()), (SECOND, present())].into_iter().chain(others);
        let (ended, took, _) = ended(items, &[unclear(), Seen::Restarted]).await;
        assert_eq!(ended, RestartEnd::Restarted);
        assert!(took < SECOND * 5, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn watching_has_half_of_the_time_to_begin() {
        let begin = async |items: Vec<(Duration, WatchItem)>| {
            let began = Instant::now();
            let begun = wait_for_watch(&mut items_of(items), &host(), began + MINUTE).await;
            (begun, began.elapsed())
        };
        let (begun, took) = begin(vec![(SECOND * 2, present())]).await;
        assert!(begun.is_ok());
        assert_eq!(took, SECOND * 2);
        // One that joins in a gap waits for its end.
        let (begun, took) = begin(vec![(SECOND, gap()), (SECOND * 2, present())]).await;
        assert!(begun.is_ok());
        assert_eq!(took, SECOND * 3);
        let refused = Arc::new(ConnectError::new(ErrorKind::ConnectionRefused, "refused"));
        let refused = WatchItem::Unreachable { host: host(), at: SystemTime::now(), error: refused };
        let (begun, took) = begin(vec![(SECOND, refused)]).await;
        let error = begun.unwrap_err();
        assert_eq!(
            (error.kind(), error.effect(), took),
            (ErrorKind::ConnectionRefused, Effect::None, SECOND)
        );
        let (begun, took) = begin(vec![]).await;
        let error = begun.unwrap_err();
        assert_eq!((error.kind(), error.effect(), took), (ErrorKind::CallTimeout, Effect::None, MINUTE / 2));
        assert!(error.is_retryable());
    }
}
