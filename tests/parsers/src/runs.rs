//! The inputs of a run: scenarios, filters, and journals of earlier runs.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use atp_executor::{
    History, Journal, LabelFilter, Operation, Plan, Policy, Portion, Scenario, StateFilter, Target,
};
use atp_protocol::ExecSpec;
use atp_transport::HostId;
use atp_transport::domain::{DomainInfo, DomainState};
use uuid::Uuid;

use crate::{runtime, text};

/// A scenario file.
pub(crate) fn scenario(bytes: &[u8]) {
    match text(bytes).parse::<Scenario>() {
        Ok(scenario) => {
            assert!(!scenario.steps().is_empty(), "{scenario:?}");
            let budget = scenario.budget(Duration::from_secs(60));
            assert!(budget >= Duration::from_secs(60), "{budget:?}");
            if let Err(error) = scenario.selection() {
                assert!(!error.message.is_empty());
            }
        }
        Err(error) => assert!(!error.message.is_empty()),
    }
}

/// Filter words: labels, states, portions, host ids.
pub(crate) fn filters(bytes: &[u8]) {
    let input = text(bytes);
    if let Ok(label) = input.parse::<LabelFilter>() {
        assert_eq!(format!("{}={}", label.key, label.value), input);
    }
    if let Ok(portion) = input.parse::<Portion>() {
        assert!((1..=7).contains(&portion.of(7)) || matches!(portion, Portion::Count(8..)), "{portion}");
        assert_eq!(portion.to_string().parse::<Portion>(), Ok(portion));
    }
    if let Ok(host) = input.parse::<HostId>() {
        assert_eq!(host.as_str(), input);
        assert!(host.as_str() != "." && host.as_str() != ".." && !input.contains('/'), "{input:?}");
    }
    let _ = input.parse::<StateFilter>();
}

/// The number of VMs of the journals here.
const VMS: u128 = 4;

/// The lines of a journal after its head, in the format with seals and the one without. For any content, each VM is done,
/// settled, or still to be done.
pub(crate) fn journal(bytes: &[u8]) {
    static HEADS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let read = |bytes: &[u8]| History::parse(Path::new("journal"), bytes, &operation());
    let _ = read(bytes);
    for head in HEADS.get_or_init(heads) {
        let Ok(history) = read(&[head.as_slice(), bytes].concat()) else { continue };
        let plan = history.apply(plan());
        let of_ours = |uuid: Option<Uuid>| uuid.is_some_and(|uuid| (1..=VMS).contains(&uuid.as_u128()));
        let targets = plan.targets.iter().map(Target::uuid);
        let settled = plan.settled.iter().map(|outcome| outcome.uuid);
        let mut outcomes: Vec<_> = targets.chain(settled).filter(|uuid| of_ours(*uuid)).collect();
        let count = outcomes.len();
        outcomes.sort();
        outcomes.dedup();
        assert!(outcomes.len() == count || has_other_hosts(&plan), "a VM has two outcomes: {plan:?}");
        assert!(count + plan.done_before >= VMS as usize, "a VM has no outcome: {plan:?}");
    }
}

/// The same UUID on another host may be another VM.
fn has_other_hosts(plan: &Plan) -> bool {
    plan.settled.iter().any(|outcome| outcome.host.as_ref().is_none_or(|host| host.as_str() != "h1"))
}

/// The head of a journal, as the journal writes it, and in the format without seals.
fn heads() -> [Vec<u8>; 2] {
    let path = std::env::temp_dir().join(format!("atp-parsers-{}.journal", Uuid::new_v4()));
    let written = runtime().block_on(async { Journal::create(&path, &plan()).await.map(drop) });
    let sealed = std::fs::read_to_string(&path).unwrap_or_default();
    let _ = std::fs::remove_file(&path);
    let first_line = sealed.split_inclusive('\n').next().unwrap_or_default();
    let unsealed = first_line.replacen("\"format\":2", "\"format\":1", 1);
    assert!(unsealed != first_line, "no journal: {written:?}, {sealed}");
    [sealed, unsealed].map(String::into_bytes)
}

fn operation() -> Operation {
    Operation::Exec(ExecSpec::new("true"))
}

fn plan() -> Plan {
    let Ok(host) = "h1".parse::<HostId>() else { panic!("h1 is no host") };
    let target = |number: u128| Target {
        host: host.clone(),
        domain: Some(DomainInfo {
            id: Some(1),
            ..DomainInfo::new(format!("vm{number}"), Uuid::from_u128(number), DomainState::Running)
        }),
    };
    Plan {
        operation: operation(),
        policy: Policy::default(),
        targets: (1..=VMS).map(target).collect(),
        settled: Vec::new(),
        listed: Vec::new(),
        notices: Vec::new(),
        placements: Default::default(),
        done_before: 0,
        to_undo: Default::default(),
        planned_in: Duration::ZERO,
        allowance: Default::default(),
    }
}
