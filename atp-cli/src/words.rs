//! The command line's texts for hints that name a command or an option.

use atp_executor::{Data, Outcome, OutcomeError};
use atp_transport::Hint;

/// The hint as text of the command line.
pub(crate) fn hint(hint: &Hint) -> String {
    let words = match hint.id() {
        Some("check-host-id") => "check the host's id against the inventory (`atp host list`)",
        Some("check-group") => "check the group's name against those of the inventory (`atp host list`)",
        Some("check-group-of-hosts") => {
            "check the spelling; a host is in the groups that its section of the settings names (`groups = [\"rack-2\"]`), or that \
             `atp host add ID URI --group rack-2` gives it"
        }
        Some("check-vm-name") => "check the name (`atp vm list`)",
        Some("start-vm") => "start it first (`atp vm start`)",
        Some("find-vm") => "find the host that it runs on (`atp vm list`), and work on it there",
        Some("start-elsewhere") => {
            "a VM that runs on two hosts destroys its disks: find the host that it runs on (`atp vm list`); if it surely runs \
             nowhere else, `--force` starts it here; for copies that share a UUID, set `shared_uuids = \"copies\"`"
        }
        Some("resume-vm") => "resume it first (`atp vm resume`)",
        Some("wake-vm") => "its guest sleeps: `atp vm resume` wakes it",
        Some("destroy-sleeper") => {
            "it was reset while its guest slept, and does not go on by itself: destroy it, and start it again (`atp vm destroy`, \
             `atp vm start`)"
        }
        Some("free-storage") => {
            "reading or writing a disk failed: look at the space and the storage on its host, and resume it then (`atp vm \
             resume`)"
        }
        Some("destroy-or-reset-vm") => {
            "its guest crashed, and the VM was kept for a look (`atp screenshot`): destroy it (`atp vm destroy`), or reset it, \
             which also lets it run (`atp vm reset`)"
        }
        Some("check-vm-state") => "check the VM's state (`atp vm info`)",
        Some("wait-for-monitor") => {
            "another command occupies the VM: wait until it ends, or check with `virsh domcontrol`; a VM that hangs can still be destroyed (`atp vm destroy`)"
        }
        Some("give-host-time") => {
            "allow more time (`--timeout`, `--deadline`); if that does not help, check whether the host is up and its daemon \
             hangs (systemctl status libvirtd, or virtqemud and virtproxyd)"
        }
        Some("await-state") => {
            "its guest may still boot, or have no agent: look at its console, allow more time (`--timeout`), or wait for the \
             state only (`--wait=state`)"
        }
        Some("give-time") => "look at the VM's console, or allow more time (`--timeout`)",
        Some("give-copy-time") => {
            "allow more time (`--timeout`): it ends up to one second before its deadline, to close files in the guest"
        }
        Some("destroy-vm") => {
            "the guest may ignore the request: look at its console, or power it off (`atp vm destroy`)"
        }
        Some("reset-vm") => {
            "the guest may ignore the request: look at its console, or reset it (`atp vm reset`)"
        }
        Some("start-stopped-vm") => "start it (`atp vm start`), and check <on_reboot> in its definition",
        Some("check-uptime") => {
            "check the guest's uptime (`atp exec SEL -- uptime -s`) before restarting it again"
        }
        Some("wait-for-agent") => {
            "wait for the guest to come up (`atp wait SEL --for agent`), or look at its console"
        }
        Some("copy-input") => {
            "send less input: it is sent inside the command, and encoding makes it a third longer; copy larger input to a file in the guest (`atp cp`), and read it from there"
        }
        Some("check-program") => {
            "check in the guest what the reason names: the program, its path and its execute permission; the folders of --cwd and --spool must exist; after -- the program and each argument are words of their own, and a line for a shell, with pipes or built-in commands such as cd, needs --shell"
        }
        Some("no-shell") => {
            "on Windows name paths with their drive letter (`atp cp file 'VM:C:\\dir'`, `--cwd 'C:\\dir'`), and programs of its own; a guest without any shell can only run programs directly, without --shell, --cwd and --spool"
        }
        Some("copy-folder") => {
            "name a file in the directory, or copy the directory with all that is in it (`-r`)"
        }
        Some("spool-output") => {
            "transfer its output through files in the guest (`--spool`), write it to a file there, or print less"
        }
        Some("check-process") => {
            "the agent or the guest was restarted, or another client took the result: check in the guest what was done; transfer long output through files (`--spool`), because the agent keeps it in memory"
        }
        Some("agent-memory") => {
            "the agent ended while the program ran: check in the guest what was done. An agent keeps all output of a program in memory, and may be killed because of it: transfer long output through files (`--spool`)"
        }
        Some("thaw-first") => {
            "thaw the guest's filesystems first (`atp qga SEL -- guest-fsfreeze-thaw`), if no backup is being taken"
        }
        Some("thaw") => {
            "they may still be frozen: thaw them (`atp qga SEL -- guest-fsfreeze-thaw`), or reset the VM"
        }
        Some("check-guest-file") => {
            "check the path, its permissions and the free space in the guest (`atp exec SEL -- df`)"
        }
        Some("check-guest-path") => "check the path in the guest (`atp exec SEL -- ls -l PATH`)",
        Some("check-guest-space") => {
            "check in the guest that the folder exists, its permissions, and the free space (`atp exec SEL -- df`)"
        }
        Some("resume-run") => "continue from it with --resume, or choose another file for a new run",
        Some("resume-run-later") => "free space on the disk, then continue from the journal with --resume",
        Some("begin-run-anew") => "start the run again, with --journal instead of --resume",
        Some("remove-journal") => "remove it, and start the run again with --journal",
        Some("name-journal") => "name the file that was given to --journal",
        Some("add-host") => "add a host to the configuration, or name one with --host ID=URI",
        Some("check-host-name") => {
            "check the spelling against `atp host list`, or add the host with --host ID=URI"
        }
        Some("list-snapshots") => "check the name (`atp snapshot list`)",
        Some("not-saved") => "its memory is not saved: start it, which boots it (`atp vm start`)",
        Some("snapshot-off-vm") => {
            "make a snapshot with its memory (without `--disk-only`), or shut it down first (`atp vm shutdown`): the snapshot of a VM \
             that is shut off is kept within its disk images"
        }
        Some("without-service") => "add --server none to connect from this machine",
        Some("check-folder") => "check the folder given with -d, and its free space",
        _ => return hint.to_string(),
    };
    words.to_owned()
}

/// A verb as it is typed, of the operation with this name.
pub(crate) fn verb(operation: &str) -> String {
    match operation.split_once('-') {
        Some((noun @ ("vm" | "host" | "snapshot"), verb)) => format!("{noun} {verb}"),
        _ => operation.to_owned(),
    }
}

/// The outcome with all hints as text of the command line, for every output format.
pub(crate) fn outcome(mut outcome: Outcome) -> Outcome {
    let error = |error: &mut Option<OutcomeError>| {
        if let Some(given) = error.as_mut().and_then(|error| error.hint.as_mut()) {
            *given = hint(given).into();
        }
    };
    error(&mut outcome.error);
    match &mut outcome.data {
        Some(Data::Vm(report)) => error(&mut report.guest_error),
        Some(Data::Diagnosis(diagnosis)) => {
            for given in diagnosis.findings.iter_mut().filter_map(|finding| finding.hint.as_mut()) {
                *given = hint(given).into();
            }
        }
        Some(Data::Scenario(report)) => {
            report.steps.iter_mut().chain(&mut report.teardown).for_each(|step| error(&mut step.error));
        }
        _ => {}
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_is_named_as_it_is_typed() {
        for (operation, typed) in [
            ("vm-shutdown", "vm shutdown"),
            ("host-check", "host check"),
            ("exec", "exec"),
            ("vm-reset", "vm reset"),
        ] {
            assert_eq!(verb(operation), typed);
        }
    }

    #[test]
    fn every_hint_with_an_id_has_words_of_its_own() {
        for given in Hint::ALL {
            assert_ne!(hint(given), given.to_string(), "{:?}", given.id());
        }
    }
}
