//! `snapshot list`.

use atp_api::{Data, SnapshotList};
use atp_protocol::ProtocolError;
use atp_transport::Effect;
use atp_transport::domain::{DomainInfo, Snapshot};

use crate::verbs::completion::Completion;
use crate::verbs::job::Job;

pub(in crate::verbs) async fn perform(job: &Job, domain: &DomainInfo) -> Completion {
    let listed = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
        Ok::<_, ProtocolError>(connection.domain_snapshots(domain.uuid).await?)
    });
    match listed.await {
        Ok(snapshots) => {
            let snapshots = as_tree(snapshots);
            Completion::ok(Effect::None, Data::Snapshots(SnapshotList { snapshots }))
        }
        Err(error) => job.failure(&error),
    }
}

/// The snapshots in the order of a tree: each before those that were made from it, and otherwise by time and name. One whose
/// parent is not among them, or that is its own ancestor, which no daemon has, is at the root.
fn as_tree(mut snapshots: Vec<Snapshot>) -> Vec<Snapshot> {
    // Taken from the end, so the latest comes first.
    snapshots.sort_by(|a, b| (b.created, &b.name).cmp(&(a.created, &a.name)));
    let mut tree: Vec<Snapshot> = Vec::with_capacity(snapshots.len());
    while let Some(root) = take_root(&mut snapshots) {
        let mut branch = vec![root];
        while let Some(next) = branch.pop() {
            let is_child = |snapshot: &mut Snapshot| snapshot.parent.as_deref() == Some(&next.name);
            branch.extend(snapshots.extract_if(.., is_child));
            tree.push(next);
        }
    }
    tree
}

/// Takes the earliest one whose parent is not there, or else the earliest one.
fn take_root(snapshots: &mut Vec<Snapshot>) -> Option<Snapshot> {
    let is_there = |name: &str| snapshots.iter().any(|other| other.name == name);
    let is_root = |snapshot: &Snapshot| !snapshot.parent.as_deref().is_some_and(is_there);
    match snapshots.iter().rposition(is_root) {
        Some(at) => Some(snapshots.remove(at)),
        None => snapshots.pop(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(name: &str, parent: Option<&str>, created: u64) -> Snapshot {
        Snapshot {
            name: name.to_owned(),
            parent: parent.map(str::to_owned),
            current: false,
            created: Some(created),
            state: None,
            memory: false,
            external: false,
            description: None,
        }
    }

    #[test]
    fn each_snapshot_follows_its_parent_and_otherwise_time_decides() {
        let listed = vec![
            snapshot("b2", Some("a"), 5),
            snapshot("z", None, 4),
            snapshot("b1", Some("a"), 2),
            snapshot("c", Some("b1"), 6),
            snapshot("a", None, 1),
            snapshot("orphan", Some("gone"), 3),
        ];
        let names = |tree: Vec<Snapshot>| tree.into_iter().map(|one| one.name).collect::<Vec<_>>();
        assert_eq!(names(as_tree(listed)), ["a", "b1", "c", "b2", "orphan", "z"]);
        // No daemon has these.
        let circle = vec![snapshot("x", Some("y"), 1), snapshot("y", Some("x"), 2)];
        assert_eq!(names(as_tree(circle)), ["x", "y"]);
        assert_eq!(names(as_tree(Vec::new())), [""; 0]);
    }
}
