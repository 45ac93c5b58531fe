//! Shell completion: commands and options from clap, host ids and groups from the settings, and VM names from the
//! hosts.
//!
//! A person waits for the answer: nothing here fails or takes long, and names that cannot be found out are not
//! offered.

mod cache;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;

use atp_transport::HostInfo;
use clap_complete::env::EnvCompleter;
use clap_complete::{ArgValueCompleter, CompleteEnv, CompletionCandidate};

use crate::args::GlobalArgs;
use crate::settings::{Settings, Sources};

/// The environment variable that the shell's script sets to ask for completions.
const VARIABLE: &str = "_ATP_COMPLETE";

/// VM names by host id.
type Vms = BTreeMap<String, Vec<String>>;

/// Answers the shell if the process was started to complete a word.
pub(crate) fn environment(command: fn() -> clap::Command) -> CompleteEnv<'static, fn() -> clap::Command> {
    CompleteEnv::with_factory(command).var(VARIABLE).bin("atp")
}

/// Writes the script that makes a shell ask for completions.
///
/// # Errors
/// Those of the writer.
pub(crate) fn write_registration(shell: &dyn EnvCompleter, script: &mut dyn io::Write) -> io::Result<()> {
    shell.write_registration(VARIABLE, "atp", "atp", "atp", script)
}

/// Completes `[HOST/]VM`.
pub(crate) fn selectors() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        answer(current, |text, hosts, settings| {
            selector_words(text, hosts, |hosts| cache::vms(hosts, settings))
        })
    })
}

/// Completes host ids and groups.
pub(crate) fn hosts() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        answer(current, |_, hosts, _| [ids(hosts), groups(hosts)].concat())
    })
}

/// Completes host ids.
pub(crate) fn host_ids() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| answer(current, |_, hosts, _| ids(hosts)))
}

/// The candidates that start with the current word.
fn answer(
    current: &OsStr,
    words: impl FnOnce(&str, &[HostInfo], &Settings) -> Vec<String>,
) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let Ok(settings) = Settings::resolve(&Sources::of_process(typed_flags(std::env::args_os()))) else {
        return Vec::new();
    };
    let words = words(current, &settings.hosts, &settings).into_iter();
    words.filter(|word| word.starts_with(current)).map(CompletionCandidate::new).collect()
}

/// The flags typed so far that define hosts. The line is incomplete, so clap cannot parse it.
fn typed_flags(args: impl IntoIterator<Item = OsString>) -> GlobalArgs {
    let mut flags = GlobalArgs::default();
    let mut words = args.into_iter().filter_map(|word| word.into_string().ok());
    while let Some(word) = words.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        match option.as_str() {
            "--config" => flags.config = value.or_else(|| words.next()).map(Into::into),
            "--host" => {
                flags.hosts.extend(value.or_else(|| words.next()).and_then(|host| GlobalArgs::host(&host)))
            }
            _ => {}
        }
    }
    flags
}

fn ids(hosts: &[HostInfo]) -> Vec<String> {
    hosts.iter().map(|host| host.id.clone()).collect()
}

fn groups(hosts: &[HostInfo]) -> Vec<String> {
    let groups: BTreeSet<_> = hosts.iter().flat_map(|host| &host.groups).collect();
    groups.into_iter().map(|group| format!("@{group}")).collect()
}

/// After a host or a group, its VMs; without one, hosts, groups and all VMs.
fn selector_words(current: &str, hosts: &[HostInfo], vms: impl FnOnce(&[HostInfo]) -> Vms) -> Vec<String> {
    let names = |hosts: &[HostInfo]| -> BTreeSet<String> {
        vms(hosts).into_values().flatten().filter(|name| is_plain(name)).collect()
    };
    let Some((place, _)) = current.split_once('/') else {
        let places = [ids(hosts), groups(hosts)].concat().into_iter().map(|word| format!("{word}/"));
        return places.chain(names(hosts)).collect();
    };
    let chosen: Vec<_> = match place.strip_prefix('@') {
        Some(group) => {
            hosts.iter().filter(|host| host.groups.iter().any(|one| one == group)).cloned().collect()
        }
        None => hosts.iter().filter(|host| host.id == place).cloned().collect(),
    };
    names(&chosen).into_iter().map(|name| format!("{place}/{name}")).collect()
}

/// Whether every shell and selector takes a name literally. Other names are not offered: they would need quoting.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && name.chars().all(|c| c.is_alphanumeric() || "._-+:".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Vec<HostInfo> {
        vec![HostInfo::new("h1", "x").with_group("lab"), HostInfo::new("h2", "x").with_group("lab")]
    }

    fn vms(hosts: &[HostInfo]) -> Vms {
        let names = |id: &str| {
            vec![format!("vm-{id}"), "both".to_owned(), "with space".to_owned(), "$(x)".to_owned()]
        };
        hosts.iter().map(|host| (host.id.clone(), names(&host.id))).collect()
    }

    #[test]
    fn without_a_slash_everything_is_offered() {
        let words = selector_words("", &hosts(), vms);
        assert_eq!(words, ["h1/", "h2/", "@lab/", "both", "vm-h1", "vm-h2"]);
    }

    #[test]
    fn after_a_slash_the_vms_of_that_host_or_group_are_offered() {
        assert_eq!(selector_words("h1/v", &hosts(), vms), ["h1/both", "h1/vm-h1"]);
        assert_eq!(selector_words("@lab/", &hosts(), vms), ["@lab/both", "@lab/vm-h1", "@lab/vm-h2"]);
        assert!(selector_words("nosuch/", &hosts(), vms).is_empty());
    }

    #[test]
    fn hosts_on_the_line_are_known() {
        let words = [
            "atp",
            "--",
            "atp",
            "--host",
            "a=test:///default",
            "vm",
            "--host=b=test:///x",
            "--config",
            "f.toml",
            "--host",
        ];
        let flags = typed_flags(words.map(OsString::from));
        let ids: Vec<_> = flags.hosts.iter().map(|host| host.id.as_str()).collect();
        assert_eq!((ids, flags.config), (vec!["a", "b"], Some("f.toml".into())));
    }
}
