//! Sentences of libvirt's that decide where its numbers do not.
//!
//! A daemon translates its messages into the language of its machine. So errors are classified by number, domain and
//! operation, by what the daemon answers when it is asked for a state, and by parts that no catalogue translates. What
//! is left is listed here, each sentence with the reason why nothing else decides, and with its translations. Each entry is
//! the shortest part that tells the sentence from others with the same number, out of the catalogues of libvirt 9.0 to
//! 11.3 (`/usr/share/locale/*/LC_MESSAGES/libvirt.mo`). A language without an entry has no translation: there the daemon
//! sends the English sentence.

/// A sentence of libvirt's, in all its languages.
pub(crate) struct Phrase {
    /// Why no number, state or untranslated part decides.
    pub(crate) why: &'static str,
    pub(crate) english: &'static str,
    pub(crate) translations: &'static [&'static str],
}

impl Phrase {
    pub(crate) fn is_in(&self, message: &str) -> bool {
        message.contains(self.english) || self.translations.iter().any(|part| message.contains(part))
    }
}

/// The channel of the agent has no process at its other end. Nothing was sent.
pub(crate) const AGENT_NOT_CONNECTED: Phrase = Phrase {
    why: "an agent that is absent, broken, gone or silent has one number, AGENT_UNRESPONSIVE, until libvirt 11.2",
    english: "not connected",
    translations: &[
        "není připojen",
        "QEMU n'est pas connecté",
        "接続されていません",
        "연결되지 않았습니다",
        "QEMU nu este conectat",
        "не подключён",
        "är inte ansluten",
        "не з'єднано",
        "客户机代理未连接",
    ],
};

/// An earlier error made the daemon stop using the agent. Nothing was sent.
pub(crate) const AGENT_BROKEN: Phrase = Phrase {
    why: AGENT_NOT_CONNECTED.why,
    english: "not available due to an error",
    translations: &[
        "এটা ত্ৰুটিৰ বাবে উপলব্ধ নহয়",
        "kvůli chybě k dispozici",
        "nicht verfügbar ist aufgrund eines Fehlers",
        "no está disponible debido a un error",
        "n'est pas disponible en raison d'une erreur",
        "ભૂલને કારણે",
        "त्रुटि के कारण उपलब्ध नहीं है",
        "エラーのため利用可能ではありません",
        "ದೋಷದ ಕಾರಣದಿಂದಾಗಿ",
        "오류로 인해",
        "ഒരു പിശക് കാരണം",
        "त्रुटीमुळे",
        "ତୃଟି କାରଣରୁ",
        "ਗਲਤੀ ਦੀ ਵਜ੍ਹਾ ਕਰ ਕੇ",
        "não está disponível devido à um erro",
        "nu este disponibil din cauza unei erori",
        "недоступен вследствие ошибки",
        "på grund av ett fel",
        "பிழையின் காரணமாக",
        "దోషం కారణంగా",
        "недоступний через помилку",
        "由于出错导致",
    ],
};

/// The agent closed its channel after a command had been sent.
pub(crate) const AGENT_GONE: Phrase = Phrase {
    why: AGENT_NOT_CONNECTED.why,
    english: "disappeared",
    translations: &[
        "při vykonávání příkazu zmizel",
        "a disparu lors de l'exécution",
        "è scomparso durante l'esecuzione",
        "ゲストエージェントが消えました",
        "게스트 에이전트가 사라졌습니다",
        "a dispărut în timpul executării",
        "исчез во время выполнения",
        "försvann när kommandot kördes",
        "припинив роботу під час виконання",
        "客户机代理消失了",
    ],
};

/// The silence of the agent came before the command was sent.
pub(crate) const AGENT_NOT_SYNCHRONISED: Phrase = Phrase {
    why: "the silence before a command and after it have one number, AGENT_UNRESPONSIVE or AGENT_COMMAND_TIMEOUT",
    english: "didn't respond to synchronization",
    translations: &["초 안에 동기화로 응답하지 않습니다", "не відповів на синхронізацію"],
};

/// The monitor's end: QEMU has ended. In a start the guest may have run; a QEMU that ends before has another sentence.
pub(crate) const MONITOR_ENDED: Phrase = Phrase {
    why: "both ends of a QEMU are an INTERNAL_ERROR of the QEMU driver, and the domain is shut off after both",
    english: "End of file from qemu monitor",
    translations: &[
        "(EOF) z qemu monitoru",
        "Fin du fichier du moniteur qemu",
        "qemu モニターからのファイルの終了",
        "qemu 모니터에서 파일의 끝",
        "Sfârșit de fișier din monitorul qemu",
        "Filslut från qemu-monitorn",
        "Символ кінця файла від монітора qemu",
        "中的文件结束",
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    /// A new sentence belongs here, and has to give its reason.
    const ALL: [&Phrase; 5] =
        [&AGENT_NOT_CONNECTED, &AGENT_BROKEN, &AGENT_GONE, &AGENT_NOT_SYNCHRONISED, &MONITOR_ENDED];

    #[test]
    fn each_sentence_has_a_reason_and_is_no_part_of_another() {
        for phrase in ALL {
            assert!(phrase.why.len() > 40, "{}: {}", phrase.english, phrase.why);
            for other in ALL.into_iter().filter(|other| other.english != phrase.english) {
                for text in other.translations.iter().chain([&other.english]) {
                    assert!(!phrase.is_in(text), "{} is taken for {}", text, phrase.english);
                }
            }
        }
    }
}
