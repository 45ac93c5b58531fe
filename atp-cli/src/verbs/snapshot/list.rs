//! `atp snapshot list`.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use anstyle::Style;
use atp_executor::{Data, Operation, Outcome};
use atp_transport::domain::Snapshot;
use clap::Args;

use crate::args::TargetArgs;
use crate::batch::Batch;
use crate::context::Context;
use crate::dry_run;
use crate::problem::Failure;
use crate::render::Forms;
use crate::render::table::{NOTHING, Rows, reason, vm};
use crate::verbs::verb::Run;

const EXAMPLES: &str = "\
Examples:
  atp snapshot list web-1
  atp snapshot list 'web-*' -o json";

/// List the snapshots of VMs, each below the one that it was made from
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    targets: TargetArgs,
}

impl Run for ListArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::SnapshotList,
            dry_run: dry_run::name_only,
            forms: Forms::new(trees, &["snapshots"]),
        })
    }
}

/// A row for each snapshot; `*` marks the one that the VM is at.
fn trees(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "SNAPSHOT", "STATE", "KIND", "CREATED", "DESCRIPTION"]);
    for outcome in outcomes {
        let Some(Data::Snapshots(list)) = &outcome.data else {
            let nothing = [NOTHING; 4];
            rows.add_outcome(outcome, &[&[vm(outcome), reason(outcome)][..], &nothing].concat());
            continue;
        };
        let host = outcome.host.as_ref().map_or(NOTHING, |host| host.as_str());
        if list.snapshots.is_empty() {
            let nothing = [NOTHING; 5];
            rows.add(Style::new(), &[&[host, vm(outcome)][..], &nothing].concat());
        }
        let mut depths = HashMap::new();
        for snapshot in &list.snapshots {
            let parent = snapshot.parent.as_deref().and_then(|parent| depths.get(parent));
            let depth: usize = parent.map_or(0, |depth| depth + 1);
            depths.insert(snapshot.name.as_str(), depth);
            let mark = if snapshot.current { " *" } else { "" };
            let name = format!("{}{}{mark}", "  ".repeat(depth), snapshot.name);
            let state = snapshot.state.map_or("running", |state| state.as_str());
            let created = snapshot.created.map_or_else(|| NOTHING.to_owned(), at);
            let description = snapshot.description.as_deref().unwrap_or(NOTHING);
            rows.add(Style::new(), &[host, vm(outcome), &name, state, kind(snapshot), &created, description]);
        }
    }
    rows.finish()
}

fn kind(snapshot: &Snapshot) -> &'static str {
    match (snapshot.memory, snapshot.external) {
        (true, false) => "disks, memory",
        (false, false) => "disks",
        (true, true) => "disks, memory (external)",
        (false, true) => "disks (external)",
    }
}

/// The time, in UTC.
fn at(seconds: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) {
        // The formatter takes no later year.
        Some(time) if seconds < 253_402_300_800 => humantime::format_rfc3339_seconds(time).to_string(),
        _ => seconds.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use atp_executor::SnapshotList;
    use atp_transport::domain::DomainState;

    use super::*;
    use crate::render::fixture::outcome;

    #[test]
    fn snapshots_are_shown_as_a_tree() {
        let snapshot = |name: &str, parent: Option<&str>, memory: bool| Snapshot {
            name: name.to_owned(),
            parent: parent.map(str::to_owned),
            current: name == "c",
            created: Some(1_700_000_000),
            state: memory.then_some(DomainState::Running),
            memory,
            external: !memory,
            description: None,
        };
        let snapshots =
            vec![snapshot("a", None, true), snapshot("b", Some("a"), false), snapshot("c", Some("b"), true)];
        let data = Some(Data::Snapshots(SnapshotList { snapshots }));
        let text = trees(&[Outcome { data, ..outcome(Some("web")) }]);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "HOST  VM   SNAPSHOT  STATE    KIND              CREATED               DESCRIPTION\n\
             h1    web  a         running  disks, memory     2023-11-14T22:13:20Z  -\n\
             h1    web    b       running  disks (external)  2023-11-14T22:13:20Z  -\n\
             h1    web      c *   running  disks, memory     2023-11-14T22:13:20Z  -\n"
        );
        let data = Some(Data::Snapshots(SnapshotList { snapshots: Vec::new() }));
        let text = trees(&[Outcome { data, ..outcome(Some("web")) }]);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "HOST  VM   SNAPSHOT  STATE  KIND  CREATED  DESCRIPTION\n\
             h1    web  -         -      -     -        -\n"
        );
        assert_eq!(at(u64::MAX), u64::MAX.to_string());
    }
}
