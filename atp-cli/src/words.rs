//! The command line's texts for hints that name a command or an option.

use atp_executor::{Data, Outcome, OutcomeError};
use atp_transport::Hint;

/// The hint as text of the command line.
pub(crate) fn hint(hint: &Hint) -> String {
    let words = match hint.id() {
        Some("check-host-id") => "check the host's id against the inventory (`atp host list`)",
        Some("check-group") => "check the group's name against those of the inventory (`atp host list`)",
        Some("check-vm-name") => "check the name (`atp vm list`)",
        Some("start-vm") => "start it first (`atp vm start`)",
        Some("resume-vm") => "resume it first (`atp vm resume`)",
        Some("check-vm-state") => "check the VM's state (`atp vm info`)",
        Some("wait-for-monitor") => {
            "another command holds the VM: wait for it, or look with `virsh domcontrol`; a VM that hangs can still be destroyed (`atp vm destroy`)"
        }
        Some("give-host-time") => {
            "give more time (`--timeout`, `--deadline`); if that does not help, check whether the host is up and its daemon \
             hangs (systemctl status libvirtd)"
        }
        Some("give-time") => "look at the VM's console, or give more time (`--timeout`)",
        Some("give-copy-time") => {
            "give it more time (`--timeout`): it ends up to a second before its time is up, for what is open in the guest to \
             be closed"
        }
        Some("destroy-vm") => {
            "the guest may ignore the request: look at its console, or pull the plug (`atp vm destroy`)"
        }
        Some("reset-vm") => {
            "the guest may ignore the request: look at its console, or press the reset button (`atp vm reset`)"
        }
        Some("start-stopped-vm") => "start it (`atp vm start`), and look at its <on_reboot>",
        Some("check-uptime") => "look at the guest (`atp exec SEL -- uptime -s`) before restarting it again",
        Some("wait-for-agent") => {
            "wait for the guest to come up (`atp wait SEL --for agent`), or look at its console"
        }
        Some("copy-input") => {
            "send less at once: standard input travels inside the command and grows by a third; copy more than that into a \
             file in the guest (`atp cp`), and let the command read it there"
        }
        Some("check-program") => {
            "check in the guest what the reason names: the program, its path and that it may be executed; the folders of \
             --cwd and --spool have to be there already"
        }
        Some("no-shell") => {
            "run programs by themselves, without --shell, --cwd and --spool (on Windows `-- powershell.exe -Command …`); files \
             go there over the network, or with the agent's own commands (`atp qga SEL -- guest-file-open …`)"
        }
        Some("spool-output") => {
            "let its output go through files in the guest (`--spool`), let it write to a file there, or print less"
        }
        Some("check-process") => {
            "the agent or the guest was restarted, or another client took the result: check in the guest what was done; if it \
             prints much, let that go through files (`--spool`), for the agent keeps it in memory"
        }
        Some("agent-memory") => {
            "the agent ended while the program ran: check in the guest what was done. An agent keeps all that a program \
             prints in memory, and may be killed for it: let much output go through files (`--spool`)"
        }
        Some("thaw") => {
            "they may be frozen still: thaw them (`atp qga SEL -- guest-fsfreeze-thaw`), or reset the VM"
        }
        Some("check-guest-file") => {
            "check the path, its permissions and the free space in the guest (`atp exec SEL -- df`)"
        }
        Some("check-guest-path") => "check the path in the guest (`atp exec SEL -- ls -l PATH`)",
        Some("check-guest-space") => "check permissions and free space in the guest (`atp exec SEL -- df`)",
        Some("resume-run") => "go on from it with --resume, or choose another file for a new run",
        Some("resume-run-later") => "make room on the disk, then go on from the journal with --resume",
        Some("begin-run-anew") => "begin the run anew, with --journal in place of --resume",
        Some("remove-journal") => "remove it, and begin the run anew with --journal",
        Some("name-journal") => "name the file that was given to --journal",
        Some("add-host") => "add a host to the configuration, or name one with --host ID=URI",
        Some("check-host-name") => {
            "check the spelling against `atp host list`, or add the host with --host ID=URI"
        }
        Some("check-folder") => "check the folder given with -d, and the space there",
        _ => return hint.to_string(),
    };
    words.to_owned()
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
    fn every_hint_with_an_id_has_words_of_its_own() {
        for given in Hint::ALL {
            assert_ne!(hint(given), given.to_string(), "{:?}", given.id());
        }
    }
}
