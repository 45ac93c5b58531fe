//! libvirt's own errors.

use super::ErrorKind;
use super::phrase::MONITOR_ENDED;
use crate::domain::Lifecycle;
use crate::domain::error_numbers::{
    AGENT_COMMAND_FAILED, ARGUMENT_UNSUPPORTED, FROM_QEMU, INTERNAL_ERROR, OPERATION_FAILED,
    OPERATION_INVALID,
};

/// An error as libvirt reported it (`virError`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (libvirt error {code}, domain {domain})")]
pub struct LibvirtError {
    /// `virErrorNumber`.
    pub code: u32,
    /// `virErrorDomain`: the part of libvirt that raised it.
    pub domain: u32,
    /// `virErrorLevel`: 1 is a warning, 2 an error.
    pub level: u32,
    /// libvirt's words, in the language of the daemon's machine.
    pub message: String,
}

/// The call that is one command to the guest agent.
pub(super) const AGENT_COMMAND: &str = "virDomainQemuAgentCommand";

/// Calls of which the number that a state does not allow it has one meaning: the domain is not running.
const NEEDS_RUNNING: [&str; 8] = [
    AGENT_COMMAND,
    "virDomainQemuMonitorCommand",
    "virDomainOpenChannel",
    "virDomainOpenConsole",
    Lifecycle::Destroy.function(),
    Lifecycle::Shutdown.function(),
    Lifecycle::Reboot.function(),
    Lifecycle::Reset.function(),
];

/// What may stand around a name in a message, in any language.
const QUOTES: [char; 12] = ['\'', '"', '`', '‘', '’', '“', '”', '„', '«', '»', '「', '」'];

impl LibvirtError {
    /// The kind of an error of `operation` that is `kind` by its number alone. Some numbers have one meaning for one call.
    pub(crate) fn kind_of(&self, operation: &str, kind: ErrorKind) -> ErrorKind {
        match self.code {
            OPERATION_INVALID if NEEDS_RUNNING.contains(&operation) => ErrorKind::VmNotRunning,
            ARGUMENT_UNSUPPORTED if operation == AGENT_COMMAND => ErrorKind::AgentNotConfigured,
            OPERATION_FAILED if matches!(operation, "virDomainOpenChannel" | "virDomainOpenConsole") => {
                ErrorKind::ChannelInUse
            }
            // The agent's job waits for no other.
            _ if operation == AGENT_COMMAND && kind == ErrorKind::MonitorBusy => ErrorKind::AgentBusy,
            _ => kind,
        }
    }

    /// Whether this says that QEMU ended under a command to it. The domain is shut off then, or is about to be.
    pub fn is_end_of_qemu(&self) -> bool {
        MONITOR_ENDED.is_in(&self.message)
    }

    /// The command and the description of an error reply of the guest agent to the call that is one command to it. libvirt
    /// reports both in words of its own, in any language: the command's name in quotes, and after a colon the description.
    /// None if this error is another. Without a description the words stand for a reply that is neither a result nor an error.
    pub fn agent_refusal(&self) -> Option<(&str, &str)> {
        self.refusal()
    }

    /// The same of an error reply of QEMU to a call that is one command to it.
    pub(super) fn qemu_refusal(&self) -> Option<(&str, &str)> {
        self.refusal()
    }

    /// An internal error that quotes what the guest sent is none: it comes from libvirt's JSON parser, which has another
    /// domain, or its first quotation is no name.
    fn refusal(&self) -> Option<(&str, &str)> {
        if self.domain != FROM_QEMU || ![INTERNAL_ERROR, AGENT_COMMAND_FAILED].contains(&self.code) {
            return None;
        }
        let message = self.message.as_str();
        let (open, quote) = message.char_indices().find(|&(at, c)| {
            let before = message[..at].chars().next_back();
            QUOTES.contains(&c) && !before.is_some_and(is_latin)
        })?;
        let quoted = &message[open + quote.len_utf8()..];
        let end = quoted.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))?;
        let (name, rest) = quoted.split_at(end);
        // `(vm='NAME')` names a machine.
        if name.is_empty() || !rest.starts_with(QUOTES) || message[..open].ends_with('=') {
            return None;
        }
        // Words may come between, in some languages.
        let desc =
            [": ", "："].iter().filter_map(|colon| rest.split_once(colon)).max_by_key(|(_, desc)| desc.len());
        desc.map(|(_, desc)| (name, desc))
    }
}

/// A quotation mark behind such a letter is an apostrophe.
fn is_latin(c: char) -> bool {
    c.is_alphabetic() && c < '\u{250}'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u32, domain: u32, message: &str) -> Option<(String, String)> {
        let error = LibvirtError { code, domain, level: 2, message: message.to_owned() };
        error.agent_refusal().map(|(name, desc)| (name.to_owned(), desc.to_owned()))
    }

    #[test]
    fn an_agents_refusal_is_found_in_the_words_of_any_language() {
        for message in [
            "internal error: unable to execute QEMU agent command 'guest-exec': no: 'x'",
            "guest agent command failed: unable to execute QEMU agent command 'guest-exec': no: 'x'",
            "Interner Fehler: Agent QEMU-befehl 'guest-exec' kann nicht ausgeführt werden: no: 'x'",
            "内部エラー: QEMU エージェントコマンド 'guest-exec' を実行できません: no: 'x'",
            "внутренняя ошибка: не удалось выполнить команду агента QEMU «guest-exec»: no: 'x'",
            "内部错误：无法执行 QEMU 代理命令 'guest-exec'：no: 'x'",
            "Erreur interne : Impossible d'exécuter la commande 'guest-exec' de l'agent QEMU : no: 'x'",
            "internt fel: kan inte köra QEMU-agentkommandot ”guest-exec”: no: 'x'",
            "vnitřní chyba: nedaří se vykonat příkaz QEMU agenta „guest-exec“: no: 'x'",
        ] {
            let expected = Some(("guest-exec".to_owned(), "no: 'x'".to_owned()));
            assert_eq!(refusal(1, FROM_QEMU, message), expected, "{message}");
            assert_eq!(refusal(38, FROM_QEMU, message), None, "{message}");
        }
    }

    #[test]
    fn a_description_may_hold_anything() {
        let message =
            "internal error: unable to execute QEMU agent command 'guest-exec': {\"a\": 'b': [1]}\nc: d";
        let expected = Some(("guest-exec".to_owned(), "{\"a\": 'b': [1]}\nc: d".to_owned()));
        assert_eq!(refusal(1, FROM_QEMU, message), expected);
    }

    #[test]
    fn what_a_guest_sent_is_no_refusal() {
        for (domain, message) in [
            (0, "internal error: cannot parse json 'guest-exec': parse error"),
            (FROM_QEMU, "internal error: Unknown JSON reply '{\"guest-exec\": 1}'"),
            (FROM_QEMU, "internal error: Parsed JSON reply '\"guest-exec\": 1' isn't an object"),
            (FROM_QEMU, "internal error: cannot parse json {\"guest-exec 1\": 1}: parse error"),
            (FROM_QEMU, "internal error: unable to execute QEMU agent command 'guest-exec'"),
            (FROM_QEMU, "internal error: End of file from qemu monitor (vm='web-1'): gone"),
            (FROM_QEMU, "internal error: Error while processing agent IO: 'a b': c"),
            (FROM_QEMU, ""),
        ] {
            assert_eq!(refusal(1, domain, message), None, "{message}");
        }
    }

    #[test]
    fn one_number_has_one_meaning_for_one_call() {
        let error =
            |code| LibvirtError { code, domain: FROM_QEMU, level: 2, message: "さようなら".to_owned() };
        for (operation, code, by_number, expected) in [
            (AGENT_COMMAND, OPERATION_INVALID, ErrorKind::OperationInvalid, ErrorKind::VmNotRunning),
            ("virDomainReset", OPERATION_INVALID, ErrorKind::OperationInvalid, ErrorKind::VmNotRunning),
            ("virDomainResume", OPERATION_INVALID, ErrorKind::OperationInvalid, ErrorKind::OperationInvalid),
            ("virDomainCreate", OPERATION_INVALID, ErrorKind::OperationInvalid, ErrorKind::OperationInvalid),
            (AGENT_COMMAND, ARGUMENT_UNSUPPORTED, ErrorKind::NotSupported, ErrorKind::AgentNotConfigured),
            ("virDomainReboot", ARGUMENT_UNSUPPORTED, ErrorKind::NotSupported, ErrorKind::NotSupported),
            (AGENT_COMMAND, 68, ErrorKind::MonitorBusy, ErrorKind::AgentBusy),
            ("virDomainReset", 68, ErrorKind::MonitorBusy, ErrorKind::MonitorBusy),
            ("virDomainOpenChannel", OPERATION_FAILED, ErrorKind::LibvirtError, ErrorKind::ChannelInUse),
            ("virDomainOpenConsole", OPERATION_FAILED, ErrorKind::LibvirtError, ErrorKind::ChannelInUse),
            ("virDomainCreate", OPERATION_FAILED, ErrorKind::LibvirtError, ErrorKind::LibvirtError),
        ] {
            assert_eq!(error(code).kind_of(operation, by_number), expected, "{operation} {code}");
        }
    }
}
