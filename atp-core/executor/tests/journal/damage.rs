//! Journals that are not on disk as they were written: everything before the damage is read, nothing after it is trusted,
//! and only a journal without its head is refused.

use std::fs;
use std::sync::LazyLock;

use atp_executor::{
    Completion, History, Journal, JournalError, Notice, Operation, Plan, RunControl, Status, run_targets,
};
use atp_transport::{Effect, ErrorKind};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::common::virtual_time;
use crate::{Folder, exec, left, plan, planned, resume, run, sealed_up_to, spec};

const VMS: usize = 10;

/// A journal of many batches.
static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let written = || {
        virtual_time(async {
            let folder = Folder::new();
            run(&folder.path(), VMS).await;
            fs::read(folder.path()).unwrap()
        })
    };
    // A thread of its own: a runtime cannot be entered from within another one.
    std::thread::spawn(written).join().unwrap()
});

/// The journal as it was written before there were seals.
fn unsealed(text: &str) -> String {
    let lines = text.split_inclusive('\n').filter(|line| !line.starts_with("{\"sealed\""));
    lines.collect::<String>().replacen("\"format\":2", "\"format\":1", 1)
}

/// Where batches end.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let text = str::from_utf8(bytes).unwrap();
    let lines = text.match_indices('\n').map(|(at, _)| at + 1);
    lines.filter(|&end| sealed_up_to(&text[..end]) == end).collect()
}

fn parse(bytes: &[u8]) -> Result<History, JournalError> {
    History::parse("journal".as_ref(), bytes, &exec())
}

/// What is left of a journal: targets, settled outcomes, and how many are done.
fn kept(bytes: &[u8]) -> (Vec<String>, Vec<String>, usize) {
    left(&parse(bytes).unwrap(), plan(0..VMS, exec()))
}

/// The same, if everything that is still to do may have been done.
fn lost((to_do, settled, done): (Vec<String>, Vec<String>, usize)) -> (Vec<String>, Vec<String>, usize) {
    let unknown = |vm: &str| format!("{vm} failed outcome-unknown");
    let mut settled: Vec<String> = settled.into_iter().chain(to_do.iter().map(|vm| unknown(vm))).collect();
    settled.sort();
    (Vec::new(), settled, done)
}

/// Whether `tail` has a batch that was written after the one with this number.
fn goes_on_after(tail: &[u8], number: usize) -> bool {
    String::from_utf8_lossy(tail).split_inclusive('\n').filter(|line| line.ends_with('\n')).any(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        line["sealed"]["batch"].as_u64().is_some_and(|batch| batch > number as u64)
    })
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    /// Blocks that never reached the disk.
    Zeros,
    /// The bytes are gone, and those after them move up.
    Removed,
    /// The file ends there.
    CutOff,
}

proptest! {
    #[test]
    fn everything_before_damage_is_read_and_nothing_after_it_is_trusted(
        damage in prop_oneof![Just(Damage::Zeros), Just(Damage::Removed), Just(Damage::CutOff)],
        (one, other) in (any::<Index>(), any::<Index>()),
        length in any::<Index>(),
    ) {
        // All of the file, or its beginning as it was when a batch was being written.
        let all = ends(&WHOLE);
        let written = &WHOLE[..all[length.index(all.len())]];
        let (one, other) = (one.index(written.len()), other.index(written.len()));
        let (from, to) = (one.min(other), one.max(other) + 1);
        let mut bytes = written.to_vec();
        match damage {
            Damage::Zeros => bytes[from..to].fill(0),
            Damage::Removed => drop(bytes.drain(from..to)),
            Damage::CutOff => bytes.truncate(from),
        }
        let before: Vec<usize> = all.into_iter().filter(|&end| end <= from).collect();
        let Some(&good) = before.last() else {
            // Nothing is known without the head.
            let refused = parse(&bytes).unwrap_err();
            let nothing_was_started = matches!(refused, JournalError::Torn { .. } | JournalError::Empty { .. });
            prop_assert!(!nothing_was_started || !goes_on_after(&bytes, 0), "{refused}");
            return Ok(());
        };
        let known = kept(&WHOLE[..good]);
        let goes_on = goes_on_after(&bytes[good..], before.len());
        prop_assert_eq!(kept(&bytes), if goes_on { lost(known) } else { known });
    }
}

#[test]
fn a_loss_of_power_spoils_the_last_batch_and_no_other() {
    let ends = ends(&WHOLE);
    assert!(ends.len() > 5, "batches: {}", ends.len());
    for (batch, edges) in ends.windows(2).enumerate() {
        let (start, end) = (edges[0], edges[1]);
        let before = kept(&WHOLE[..start]);
        // Blocks of the last batch that never reached the disk, before lines that did.
        for (from, to) in [(start, start + 1), (start, start + 40), (start + 7, end - 2), (end - 20, end)] {
            let mut bytes = WHOLE[..end].to_vec();
            bytes[from..to].fill(0);
            assert_eq!(kept(&bytes), before, "batch {batch}: zeros from {from} to {to}");
            // What was written over with something else.
            bytes[from..to].fill(b' ');
            assert_eq!(kept(&bytes), before, "batch {batch}: blanks from {from} to {to}");
        }
        let extended = [&WHOLE[..end], &[0; 512]].concat();
        assert_eq!(kept(&extended), kept(&WHOLE[..end]), "batch {batch}: zeros behind it");
    }
}

#[test]
fn a_batch_without_its_seal_is_damaged_if_another_one_follows() {
    let ends = ends(&WHOLE);
    for edges in ends.windows(2) {
        let end = edges[1];
        let seal = WHOLE[..end - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
        let bytes = [&WHOLE[..seal], &WHOLE[end..]].concat();
        let known = kept(&WHOLE[..edges[0]]);
        assert_eq!(kept(&bytes), if end == WHOLE.len() { known } else { lost(known) }, "up to {end}");
    }
}

#[test]
fn that_nothing_was_started_is_reported_only_if_nothing_was() {
    let head = ends(&WHOLE)[0];
    let first_line = WHOLE.iter().position(|&byte| byte == b'\n').unwrap();
    for zeros in [0..10, 0..head, 20..60, first_line - 5..first_line + 5, first_line + 3..head] {
        let mut bytes = WHOLE.clone();
        bytes[zeros.clone()].fill(0);
        let torn = parse(&bytes[..head]).unwrap_err();
        assert!(matches!(torn, JournalError::Torn { .. }), "{zeros:?}: {torn}");
        let damaged = parse(&bytes).unwrap_err();
        assert!(matches!(damaged, JournalError::Damaged { .. }), "{zeros:?}: {damaged}");
    }
}

#[test]
fn what_was_lost_in_the_middle_stays_unknown_when_the_run_is_resumed() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        let ends = ends(&WHOLE);
        let mut bytes = WHOLE.clone();
        bytes[ends[4]] = 0;
        fs::write(&path, &bytes).unwrap();
        let expected = lost(kept(&WHOLE[..ends[4]]));
        for round in 0..3 {
            let history = History::read(&path, &exec()).await.unwrap();
            assert_eq!(left(&history, plan(0..VMS, exec())), expected, "round {round}");
            let resumed = history.apply(plan(0..VMS, exec()));
            assert!(resumed.notices.contains(&Notice::JournalDamaged), "{:?}", resumed.notices);
            drop(resume(&history, &resumed).await);
        }
    });
}

#[test]
fn what_could_not_be_listed_is_unknown_too_and_a_look_is_repeated() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        let info = || Operation::VmInfo;
        for operation in [exec(), info()] {
            let unlisted = vec![planned(Some("h1"), None, Status::Unreachable, ErrorKind::CallTimeout)];
            let first = Plan { settled: unlisted, ..plan([0], operation.clone()) };
            let journal = Journal::create(&path, &first).await.unwrap();
            let run = run_targets(spec(first, journal), &RunControl::default(), |_, _| async {
                Completion::ok(Effect::None, None)
            });
            run.outcomes().await;
            let mut bytes = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            let damaged = ends(&bytes)[0];
            bytes[damaged] = 0;
            let history = History::parse(&path, &bytes, &operation).unwrap();
            let left = left(&history, plan([0, 1], operation.clone()));
            let vms = ["h0/vm0", "h1/vm1"].map(str::to_owned).to_vec();
            let looks = (vms.clone(), Vec::new(), 0);
            assert_eq!(left, if operation == info() { looks } else { lost((vms, Vec::new(), 0)) });
        }
    });
}

#[test]
fn a_journal_without_seals_is_resumed() {
    virtual_time(async {
        let folder = Folder::new();
        let path = folder.path();
        let old = unsealed(str::from_utf8(&WHOLE).unwrap());
        fs::write(&path, &old).unwrap();
        let history = History::read(&path, &exec()).await.unwrap();
        let expected = kept(&WHOLE);
        assert_eq!(left(&history, plan(0..VMS, exec())), expected);

        let resumed = history.apply(plan(0..VMS, exec()));
        let journal = resume(&history, &resumed).await;
        let run = run_targets(spec(resumed, journal), &RunControl::default(), |_, _| async {
            Completion::ok(Effect::Done, None)
        });
        run.outcomes().await;
        // What is added is in batches with seals, the first of which may be the torn one.
        let bytes = fs::read(&path).unwrap();
        assert!(kept(&bytes).0.is_empty());
        let first_line = old.len() + bytes[old.len()..].iter().position(|&byte| byte == b'\n').unwrap();
        let first = ends(&bytes)[0];
        for zeros in
            [old.len()..old.len() + 9, old.len()..first, first_line..first_line + 9, first - 9..first]
        {
            let mut torn = bytes[..first].to_vec();
            torn[zeros.clone()].fill(0);
            assert_eq!(kept(&torn), expected, "{zeros:?}");
        }
        let last = sealed_up_to(str::from_utf8(&bytes[..bytes.len() - 1]).unwrap());
        let mut torn = bytes.clone();
        torn[last] = 0;
        assert_eq!(kept(&torn), kept(&bytes[..last]));
    });
}

#[test]
fn nothing_after_a_bad_line_is_trusted_without_seals_either() {
    let old = unsealed(str::from_utf8(&WHOLE).unwrap());
    let lines: Vec<&str> = old.split_inclusive('\n').collect();
    for bad in 1..lines.len() - 1 {
        let known = lines[..bad].concat();
        let garbage = [&known, "garbage\n", &lines[bad + 1..].concat()].concat();
        assert_eq!(kept(garbage.as_bytes()), lost(kept(known.as_bytes())), "line {bad}");
    }
}
