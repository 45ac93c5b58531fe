//! Where the code decides by the words of another program, which may be in any language, and why nothing else decides there.
//!
//! Errors are sorted by libvirt's numbers, by states and by the structure of a reply. `cargo xtask structure` finds each call
//! that looks into a message instead, and fails if it is not listed here with its reason.

use std::collections::BTreeSet;
use std::path::Path;

use super::modules::Modules;
use crate::Result;

/// The crates that get messages from daemons, guests, QEMU and ssh.
const CRATES: [&str; 4] = ["rpc", "transport", "protocol", "executor"];

/// A file, the calls in it, and the reason.
type Reason = (&'static str, &'static [&'static str], &'static str);

/// All that are there.
pub(super) const REASONS: &[Reason] = &[
    (
        "atp-core/executor/src/verbs/diagnose/mod.rs",
        &[r#"message.split_once(": ")"#, r#"message.strip_prefix("host ")"#],
        "takes the host and the function off a message of our own for display",
    ),
    (
        "atp-core/executor/src/verbs/scenario/node.rs",
        &["message.find(end)"],
        "takes the place and the advice off a message of the parser in this program for display",
    ),
    (
        "atp-core/protocol/src/capabilities.rs",
        &[r#"desc.starts_with("Command ")"#],
        "words of QEMU's agent, which have no translations: older agents do not say which command it is, nor that the guest is frozen",
    ),
    (
        "atp-core/protocol/src/exec/poll.rs",
        &[r#"desc.contains("'pid'")"#],
        "an agent that knows no such process reports a wrong parameter; the name of a parameter is translated into no language",
    ),
    (
        "atp-core/protocol/src/exec/poll.rs",
        &[r#"desc.split_once("error was '")"#],
        "takes an agent's frame off the reason for display: without it the whole is shown",
    ),
    (
        "atp-core/protocol/src/exec/poll.rs",
        &[r#"reason.contains("No such file or directory")"#],
        "an agent has no number for a shell that is missing; it runs in the C locale, and on Windows its system is asked for",
    ),
    (
        "atp-core/protocol/src/error/hint.rs",
        &["reason.ends_with(words)"],
        "an agent has no number for a guest without processes or memory; it runs in the C locale, and the hint alone and whether \
         a retry may help depend on it",
    ),
    (
        "atp-core/protocol/src/console/fault.rs",
        &[
            r#"message.contains(" blocked ")"#,
            r#"message.contains(" for more than ")"#,
            r#"message.split_once("[#")"#,
            r#"message.starts_with("BUG: soft lockup - CPU#")"#,
            r#"message.starts_with("Watchdog detected hard LOCKUP")"#,
            "message.starts_with(words)",
            r#"message.strip_prefix("NMI ")"#,
            r#"message.strip_prefix("watchdog: ")"#,
        ],
        "messages of the guest's kernel, which has no translations",
    ),
    (
        "atp-core/protocol/src/libvirt.rs",
        &["message.contains(AGENT_REPLY_MAX)"],
        "a figure, which is the same in every language",
    ),
    (
        "atp-core/protocol/src/refusal.rs",
        &[
            r#"desc.starts_with("Command ")"#,
            r#"desc.starts_with("The command ")"#,
            r#"desc.contains("has been disabled")"#,
            r#"desc.contains("frozen state")"#,
            r#"desc.contains("has not been found")"#,
            r#"desc.ends_with("has not been found")"#,
            r#"desc.starts_with("Parameter '")"#,
            r#"desc.starts_with("Invalid parameter")"#,
            r#"desc.starts_with("Input handler not found for event type")"#,
        ],
        "words of QEMU and of its agent, which have no translations; libvirt drops the agent's class of an error, and a disabled \
         command has that of an unknown one",
    ),
    (
        "atp-core/rpc/src/connect_error.rs",
        &["said.contains(NOT_ADMITTED)", "said.contains(words)"],
        "words of OpenSSH, which has no translations",
    ),
    (
        "atp-core/transport/src/engine/ssh_faults.rs",
        &["said.contains(words)"],
        "words of OpenSSH, which has no translations, and of the programs behind it, which are started in the C locale; others are \
         shown as they are",
    ),
    (
        "atp-core/transport/src/engine/error.rs",
        &["AGENT_BROKEN.is_in(message)", "AGENT_GONE.is_in(message)", "AGENT_NOT_CONNECTED.is_in(message)"],
        "one number for all of them; the sentences have their translations, see error/phrase.rs",
    ),
    (
        "atp-core/transport/src/error/refused.rs",
        &["AGENT_NOT_SYNCHRONISED.is_in(& error . message)"],
        "one number before and after the command; the sentences have their translations, see error/phrase.rs",
    ),
    (
        "atp-core/transport/src/error/libvirt.rs",
        &["MONITOR_ENDED.is_in(& self . message)"],
        "one number before and after the command; the sentences have their translations, see error/phrase.rs",
    ),
    (
        "atp-core/transport/src/error/phrase.rs",
        &["message.contains(self . english)", "message.contains(part)"],
        "the sentences with their translations; each has its reason there",
    ),
    (
        "atp-core/transport/src/engine/error.rs",
        &[
            r#"message.contains("agent=")"#,
            r#"message.contains("monitor=")"#,
            "message.contains(TOO_MANY_WAIT)",
            "message.contains(SOCKET_PATH)",
        ],
        "names of jobs and settings, and the end of a path: they are translated into no language",
    ),
    (
        "atp-core/transport/src/engine/error.rs",
        &[r#"message.contains("no console to take a screendump from")"#],
        "words of QEMU, which has no translations",
    ),
    (
        "atp-core/transport/src/engine/error.rs",
        &["message.contains(SOCKET_CLOSED)"],
        "words of the client library in this process, which stays in the C locale",
    ),
    (
        "atp-core/transport/src/engine/library/open_failure.rs",
        &[
            r#"message.contains("collect auth credentials")"#,
            r#"message.contains("mech")"#,
            r#"message.contains("certificate")"#,
            r#"message.contains("TLS")"#,
            r#"message.contains("Permission denied")"#,
            r#"message.contains("Connection refused")"#,
            r#"message.contains("No such file or directory")"#,
            r#"message.contains("unable to resolve")"#,
            r#"message.contains("Name or service not known")"#,
        ],
        "words of the client library in this process, which stays in the C locale: no daemon was reached, or the kind is known by \
         number and the hint alone depends on them",
    ),
    (
        "atp-core/transport/src/engine/native/failure.rs",
        &[r#"message.strip_suffix(" ()")"#],
        "takes empty parentheses off for display",
    ),
];

/// The calls that look into a message, with their files.
pub(super) fn readings(root: &Path) -> Result<BTreeSet<(String, String)>> {
    let mut readings = BTreeSet::new();
    for name in CRATES {
        let sources = root.join("atp-core").join(name).join("src");
        let modules =
            Modules::read(&sources).map_err(|error| format!("cannot read {}: {error}", sources.display()))?;
        modules.for_each_reading(|file, reading| {
            let file = file.strip_prefix(root).unwrap_or(file).display().to_string();
            readings.insert((file, reading.to_owned()));
        });
    }
    Ok(readings)
}

/// The calls without a reason, and the reasons without a call.
pub(super) fn problems(readings: &BTreeSet<(String, String)>, reasons: &[Reason]) -> Vec<String> {
    let listed: BTreeSet<(String, String)> = reasons
        .iter()
        .flat_map(|(file, calls, _)| calls.iter().map(|call| ((*file).to_owned(), (*call).to_owned())))
        .collect();
    let new = readings.difference(&listed).map(|(file, call)| {
        format!("words: {file} decides by {call}: use a number, a state or the structure, or list it with its reason")
    });
    let old = listed.difference(readings).map(|(file, call)| {
        format!("words: {file} does not decide by {call} (any more): remove it from the list")
    });
    new.chain(old).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_a_reason_and_a_reason_without_a_call_are_problems() {
        let readings = BTreeSet::from([("a.rs".to_owned(), "said.contains(X)".to_owned())]);
        assert_eq!(problems(&readings, &[("a.rs", &["said.contains(X)"], "why")]), [""; 0]);
        let found = problems(&readings, &[("b.rs", &["said.contains(X)"], "why")]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].contains("a.rs decides by said.contains(X)") && found[1].contains("b.rs"),
            "{found:?}"
        );
    }
}
