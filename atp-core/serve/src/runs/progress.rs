//! How far the targets of a run are: of each the latest that is known, while it is under way. Nothing of it is stored.

use std::collections::HashMap;

use atp_api::{HostId, RunEvent};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The most targets of a run of which it is kept; it is not told of others.
const MOST: usize = 10_000;

/// The most targets that a reader is told of at once.
const AT_ONCE: usize = 256;

/// The host and the VM of a target.
type Target = (Option<HostId>, Option<String>);

/// The progress of the targets of a run that are under way.
#[derive(Debug)]
pub(super) struct TargetProgress {
    kept: Mutex<HashMap<Target, Latest>>,
    /// The number of the last change.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Latest {
    /// The number of the change.
    change: u64,
    /// The number of the last event of the run before it.
    after: i64,
    json: String,
}

impl Default for TargetProgress {
    fn default() -> Self {
        TargetProgress { kept: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl TargetProgress {
    /// Keeps an event of progress, which came after the event of this number.
    pub(super) fn set(&self, host: &HostId, vm: Option<&str>, after: i64, event: &RunEvent) {
        let Ok(json) = serde_json::to_string(event) else { return };
        let target = (Some(host.clone()), vm.map(str::to_owned));
        let mut kept = self.kept.lock();
        if kept.len() >= MOST && !kept.contains_key(&target) {
            return;
        }
        self.changed.send_modify(|change| {
            *change += 1;
            kept.insert(target, Latest { change: *change, after, json });
        });
    }

    /// Forgets a target, which has its outcome.
    pub(super) fn remove(&self, host: Option<&HostId>, vm: Option<&str>) {
        self.kept.lock().remove(&(host.cloned(), vm.map(str::to_owned)));
    }

    /// What is new since the change `seen` for a reader that has the events up to this number, as events in JSON, in the order in
    /// which it came; and the number of the change that the reader has seen then.
    pub(super) fn news(&self, seen: u64, event: i64) -> (Vec<String>, u64) {
        let kept = self.kept.lock();
        let mut new: Vec<_> = kept.values().filter(|latest| latest.change > seen).collect();
        new.sort_unstable_by_key(|latest| latest.change);
        let told = new.iter().position(|latest| latest.after > event).unwrap_or(new.len()).min(AT_ONCE);
        let json = new[..told].iter().map(|latest| latest.json.clone()).collect();
        // The others are for later: one that was started just now, of which the reader does not know that yet.
        let seen = new.get(told).map_or_else(|| *self.changed.borrow(), |next| next.change - 1);
        (json, seen)
    }

    /// Returns when there was a change after this one.
    ///
    /// Cancel safe.
    pub(super) async fn wait(&self, seen: u64) {
        let mut changed = self.changed.subscribe();
        // The sender is here, so that this does not fail.
        let _there = changed.wait_for(|change| *change > seen).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(progress: &TargetProgress, vm: &str, after: i64, done: u64) {
        let host: HostId = "h1".parse().unwrap();
        let event = RunEvent::Progress { host: host.clone(), vm: Some(vm.to_owned()), done, total: 100 };
        progress.set(&host, Some(vm), after, &event);
    }

    #[tokio::test]
    async fn a_reader_gets_the_latest_of_each_target_once() {
        let progress = TargetProgress::default();
        assert_eq!(progress.news(0, 9), (Vec::new(), 0));
        for (vm, done) in [("a", 1), ("b", 2), ("a", 3)] {
            set(&progress, vm, 5, done);
        }
        let (json, seen) = progress.news(0, 9);
        assert!(
            json.len() == 2 && json[0].contains("\"done\":2") && json[1].contains("\"done\":3"),
            "{json:?}"
        );
        assert_eq!(progress.news(seen, 9), (Vec::new(), seen));
        progress.wait(seen - 1).await;

        set(&progress, "a", 5, 4);
        progress.remove(Some(&"h1".parse().unwrap()), Some("a"));
        let (json, last) = progress.news(seen, 9);
        assert!(json.is_empty() && last > seen, "progress after the outcome: {json:?}");
    }

    #[test]
    fn a_reader_is_told_of_the_start_first() {
        let progress = TargetProgress::default();
        set(&progress, "a", 5, 1);
        set(&progress, "b", 7, 2);
        assert_eq!(progress.news(0, 4), (Vec::new(), 0));
        let (json, seen) = progress.news(0, 6);
        assert!(json.len() == 1 && json[0].contains("\"a\""), "{json:?}");
        let (json, _) = progress.news(seen, 7);
        assert!(json.len() == 1 && json[0].contains("\"b\""), "{json:?}");
    }

    #[test]
    fn it_is_kept_of_so_many_targets() {
        let progress = TargetProgress::default();
        for vm in 0..=MOST {
            set(&progress, &vm.to_string(), 0, 1);
        }
        set(&progress, "0", 0, 2);
        let (mut all, mut seen) = (Vec::new(), 0);
        loop {
            let (json, last) = progress.news(seen, 0);
            if json.is_empty() {
                break;
            }
            assert!(json.len() <= AT_ONCE);
            all.extend(json);
            seen = last;
        }
        assert!(all.len() == MOST && all[MOST - 1].contains("\"done\":2"), "{}", all.len());
    }
}
