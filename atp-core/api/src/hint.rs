//! What a person can try.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host_id::HostId;

/// What a person can try about a failure.
///
/// A hint that names something a front end has words of its own for, such as a command or an option, has an id: a stable
/// word by which the front end finds them. Its text, which it dereferences to, is for those that have none, and is in plain
/// words that suit every front end. A hint without an id is serialised as its text alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Form", into = "Form")]
#[schemars(with = "Form")]
pub struct Hint {
    id: Option<Cow<'static, str>>,
    text: Cow<'static, str>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum Form {
    Plain(Cow<'static, str>),
    Named { id: Cow<'static, str>, text: Cow<'static, str> },
}

/// Declares hints with ids.
macro_rules! hints {
    ($($name:ident = $id:literal, $text:literal;)*) => {
        impl Hint {
            $(
                #[doc = $text]
                pub const $name: Hint = Hint::named($id, $text);
            )*

            /// All hints that have an id.
            pub const ALL: &'static [Hint] = &[$(Hint::$name),*];
        }
    };
}

hints! {
    CHECK_HOST_ID = "check-host-id", "check the host's id against the inventory";
    CHECK_GROUP = "check-group", "check the group's name against those of the inventory";
    CHECK_GROUP_OF_HOSTS = "check-group-of-hosts",
        "check the spelling; a host is in the groups that its section of the settings names: groups = [\"rack-2\"]";
    CHECK_VM_NAME = "check-vm-name", "check the name against those of the host";
    START_VM = "start-vm", "start it first";
    FIND_VM = "find-vm", "find the host that it runs on among all hosts, and work on it there";
    START_ELSEWHERE = "start-elsewhere",
        "a VM that runs on two hosts destroys its disks: work on it where it runs, or start it without this check if it surely runs nowhere else; for copies that share a UUID, set shared_uuids to \"copies\"";
    RESUME_VM = "resume-vm", "resume it first";
    WAKE_VM = "wake-vm", "its guest sleeps: resuming the VM wakes it";
    DESTROY_SLEEPER = "destroy-sleeper",
        "it was reset while its guest slept, and does not go on by itself: destroy it, and start it again";
    FREE_STORAGE = "free-storage",
        "reading or writing a disk failed: look at the space and the storage on its host, and resume it then";
    DESTROY_OR_RESET_VM = "destroy-or-reset-vm",
        "its guest crashed, and the VM was kept for a look: destroy it, or reset it, which also lets it run";
    CHECK_VM_STATE = "check-vm-state", "check the VM's state";
    WAIT_FOR_MONITOR = "wait-for-monitor",
        "another command occupies the VM: wait until it ends, or check with `virsh domcontrol`; a VM that hangs can still be destroyed";
    GIVE_HOST_TIME = "give-host-time",
        "allow more time; if that does not help, check whether the host is up and its daemon hangs (systemctl status libvirtd, or virtqemud and virtproxyd)";
    AWAIT_STATE = "await-state",
        "its guest may still boot, or have no agent: look at its console, allow more time, or wait for the state only";
    GIVE_TIME = "give-time", "look at the VM's console, or allow more time";
    GIVE_COPY_TIME = "give-copy-time",
        "allow more time: it ends up to one second before its deadline, to close files in the guest";
    DESTROY_VM = "destroy-vm", "the guest may ignore the request: look at its console, or destroy the VM";
    RESET_VM = "reset-vm", "the guest may ignore the request: look at its console, or reset the VM";
    START_STOPPED_VM = "start-stopped-vm", "start it, and check <on_reboot> in its definition";
    CHECK_UPTIME = "check-uptime", "check the guest's uptime before restarting it again";
    WAIT_FOR_AGENT = "wait-for-agent", "wait for the guest to come up, or look at its console";
    COPY_INPUT = "copy-input",
        "send less input: it is sent inside the command, and encoding makes it a third longer; copy larger input to a file in the guest, and read it from there";
    CHECK_PROGRAM = "check-program",
        "check in the guest what the reason names: the program, its path and its execute permission; the working folder and the folder for output must exist";
    NO_SHELL = "no-shell",
        "on Windows name paths with their drive letter (`C:\\dir`), and programs of its own; a guest without any shell can only run programs directly";
    SPOOL_OUTPUT = "spool-output",
        "transfer its output through files in the guest, write it to a file there, or print less";
    CHECK_PROCESS = "check-process",
        "the agent or the guest was restarted, or another client took the result: check in the guest what was done; transfer long output through files in the guest, because the agent keeps it in memory";
    AGENT_MEMORY = "agent-memory",
        "the agent ended while the program ran: check in the guest what was done. An agent keeps all output of a program in memory, and may be killed because of it: transfer long output through files in the guest";
    THAW_FIRST = "thaw-first", "thaw the guest's filesystems first (`guest-fsfreeze-thaw`)";
    THAW = "thaw", "they may still be frozen: thaw them (`guest-fsfreeze-thaw`), or reset the VM";
    COPY_FOLDER = "copy-folder", "name a file in the directory, or copy the directory with all that is in it";
    CHECK_GUEST_FILE = "check-guest-file", "check the path, its permissions and the free space in the guest";
    CHECK_GUEST_PATH = "check-guest-path", "check the path in the guest";
    CHECK_GUEST_SPACE = "check-guest-space", "check in the guest that the folder exists, its permissions, and the free space";
    RESUME_RUN = "resume-run", "resume the run from it, or choose another file for a new run";
    RESUME_RUN_LATER = "resume-run-later", "free space on the disk, then resume the run from the journal";
    BEGIN_RUN_ANEW = "begin-run-anew", "begin the run anew";
    REMOVE_JOURNAL = "remove-journal", "remove it, and start the run again";
    NAME_JOURNAL = "name-journal", "name the file that the journal was written to";
    ADD_HOST = "add-host", "add a host to the configuration";
    CHECK_HOST_NAME = "check-host-name", "check the spelling against the inventory, or add the host";
    LIST_SNAPSHOTS = "list-snapshots", "check the name against those of the VM's snapshots";
    NOT_SAVED = "not-saved", "its memory is not saved: start it, which boots it";
    SNAPSHOT_OFF_VM = "snapshot-off-vm",
        "make a snapshot with its memory, or shut it down first: the snapshot of a VM that is shut off is kept within its disk images";
    CHECK_FOLDER = "check-folder", "check the folder, and its free space";
    WITHOUT_SERVICE = "without-service", "connect to the hosts from this machine, without a service";
}

impl Hint {
    const fn named(id: &'static str, text: &'static str) -> Self {
        Hint { id: Some(Cow::Borrowed(id)), text: Cow::Borrowed(text) }
    }

    /// A hint that every front end words alike.
    pub const fn plain(text: &'static str) -> Self {
        Hint { id: None, text: Cow::Borrowed(text) }
    }

    /// For a host that did not answer a call that is about no single VM.
    pub fn silent_host(host: &HostId) -> Self {
        let text = format!(
            "host {host} does not answer: check its daemon there (systemctl status libvirtd, or virtqemud and virtproxyd), and \
             whether one of its VMs hangs (`virsh domcontrol`); or allow more time"
        );
        text.into()
    }

    /// The stable word by which front ends tell it from others.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

impl Deref for Hint {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<String> for Hint {
    fn from(text: String) -> Self {
        Hint { id: None, text: Cow::Owned(text) }
    }
}

impl From<&'static str> for Hint {
    fn from(text: &'static str) -> Self {
        Hint::plain(text)
    }
}

impl From<Hint> for String {
    fn from(hint: Hint) -> Self {
        hint.text.into_owned()
    }
}

impl From<Form> for Hint {
    fn from(form: Form) -> Self {
        match form {
            Form::Plain(text) => Hint { id: None, text },
            Form::Named { id, text } => Hint { id: Some(id), text },
        }
    }
}

impl From<Hint> for Form {
    fn from(hint: Hint) -> Self {
        match hint {
            Hint { id: None, text } => Form::Plain(text),
            Hint { id: Some(id), text } => Form::Named { id, text },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_texts_speak_no_front_end_s_language() {
        let ids: BTreeSet<_> = Hint::ALL.iter().filter_map(Hint::id).collect();
        assert_eq!(ids.len(), Hint::ALL.len());
        for hint in Hint::ALL {
            assert!(!hint.contains("`atp ") && !hint.contains("--"), "{hint}");
        }
    }

    #[test]
    fn a_hint_is_read_back_with_and_without_an_id() {
        for (hint, json) in [
            (Hint::START_VM, r#"{"id":"start-vm","text":"start it first"}"#),
            (Hint::plain("give each host a different id"), r#""give each host a different id""#),
        ] {
            assert_eq!(serde_json::to_string(&hint).unwrap(), json);
            assert_eq!(serde_json::from_str::<Hint>(json).unwrap(), hint);
        }
    }
}
