//! `SEL`, as typed on a command line: which VMs, on which hosts.
//!
//! ```text
//! SEL  = [HOST/]VM | HOST/ | [HOST/]/RE/
//! HOST = a glob on host ids | @GROUP
//! VM   = a glob on VM names
//! glob = * ? [a-z] [!a-z] {a,b} [1-100] [01-20] [1,3,7-9] {1..100}
//! ```
//!
//! The host part ends at the first `/` that is neither escaped nor inside `[…]` or `{…}`. Without a host part
//! a selector applies to every host. VM names cannot hold a `/`; anything else in them can be taken literally
//! with `\` (see [`escape`]).

use std::fmt;
use std::str::FromStr;

use atp_transport::{ErrorKind, Hint, HostId, HostInfo};

use crate::pattern::{MAX_NAMES, Pattern, PatternError};

/// One selector, parsed. Parse it from text; [`Display`](fmt::Display) gives the text back.
#[derive(Debug, Clone)]
pub struct Selector {
    text: String,
    host: HostSelector,
    vm: VmPattern,
}

/// The host part of a selector, or a host named by itself: a glob on host ids, or `@GROUP`.
#[derive(Debug, Clone)]
pub struct HostSelector {
    text: String,
    pattern: HostPattern,
}

#[derive(Debug, Clone)]
enum HostPattern {
    Any,
    Id(Pattern),
    Group(Pattern),
}

#[derive(Debug, Clone)]
enum VmPattern {
    All,
    Name(Pattern),
}

/// Why a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("selector {input:?}, character {position}: expected {expected}")]
pub struct SelectorError {
    /// The text.
    pub input: String,
    /// The character with the error, counted from 1.
    pub position: usize,
    /// What is expected there.
    pub expected: String,
}

impl SelectorError {
    /// An error at an offset in characters from the start of the text.
    fn at(input: &str, offset: usize, expected: impl Into<String>) -> Self {
        SelectorError { input: input.to_owned(), position: offset + 1, expected: expected.into() }
    }

    /// The kind, for programs to match on.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidSelector
    }

    /// What a person can try.
    pub fn hint(&self) -> Hint {
        Hint::plain(
            r"a selector is [HOST/]VM with globs (* ? [a-z] {a,b}) and numbers ([1-100] [01-20] [1,3,7-9]), HOST/ or @GROUP/ for all VMs there, or [HOST/]/REGEX/; '\' takes a character literally",
        )
    }
}

impl Selector {
    /// The selector of every VM of every host: `*`.
    pub fn all() -> Self {
        Selector { text: "*".to_owned(), host: HostSelector::any(), vm: VmPattern::All }
    }

    /// The selector of all VMs of the hosts that `host` selects: `HOST/`.
    pub fn all_of(host: HostSelector) -> Self {
        Selector { text: format!("{}/", host.text), host, vm: VmPattern::All }
    }

    /// The selector of exactly one VM.
    pub fn of_vm(host: &HostId, vm: &str) -> Self {
        Selector {
            text: format!("{host}/{}", escape(vm)),
            host: HostSelector::of(host),
            vm: VmPattern::Name(Pattern::name(vm)),
        }
    }

    /// The host part.
    pub fn host(&self) -> &HostSelector {
        &self.host
    }

    /// Whether a VM of this name is selected, on hosts that the host part selects.
    pub fn matches_vm(&self, name: &str) -> bool {
        match &self.vm {
            VmPattern::All => true,
            VmPattern::Name(pattern) => pattern.matches(name),
        }
    }

    /// The VM names that the selector spells out, sorted: one name, or several by their numbers (`web-[1-100]`). None if its VM
    /// part is a glob or a regular expression.
    pub fn vm_names(&self) -> &[String] {
        match &self.vm {
            VmPattern::All => &[],
            VmPattern::Name(pattern) => pattern.names(),
        }
    }

    /// Whether every VM is selected, on hosts that the host part selects.
    pub fn is_all_vms(&self) -> bool {
        matches!(self.vm, VmPattern::All)
    }
}

impl HostSelector {
    /// The selector of exactly one host.
    pub fn of(host: &HostId) -> Self {
        HostSelector { text: host.to_string(), pattern: HostPattern::Id(Pattern::name(host.as_str())) }
    }

    fn any() -> Self {
        HostSelector { text: String::new(), pattern: HostPattern::Any }
    }

    /// Whether the host is selected.
    pub fn matches(&self, host: &HostInfo) -> bool {
        match &self.pattern {
            HostPattern::Any => true,
            HostPattern::Id(pattern) => pattern.matches(&host.id),
            HostPattern::Group(pattern) => host.groups.iter().any(|group| pattern.matches(group)),
        }
    }

    /// The host ids that the selector spells out, sorted; none if it is a glob or a group.
    pub fn ids(&self) -> &[String] {
        match &self.pattern {
            HostPattern::Id(pattern) => pattern.names(),
            HostPattern::Any | HostPattern::Group(_) => &[],
        }
    }

    /// The groups that the selector spells out as `@GROUP`, sorted; none if it is a glob or a host.
    pub fn groups(&self) -> &[String] {
        match &self.pattern {
            HostPattern::Group(pattern) => pattern.names(),
            HostPattern::Any | HostPattern::Id(_) => &[],
        }
    }

    /// Parses a host part that starts `offset` characters into `input`.
    fn parse(input: &str, text: &str) -> Result<Self, SelectorError> {
        let at = |base: usize| {
            move |error: PatternError| SelectorError::at(input, base + error.offset, error.expected)
        };
        let pattern = match text.strip_prefix('@') {
            Some("") => return Err(SelectorError::at(input, 1, "the name of a group")),
            Some(group) => HostPattern::Group(Pattern::glob(group).map_err(at(1))?),
            None if text.is_empty() => {
                return Err(SelectorError::at(input, 0, "a host id, a glob or @GROUP"));
            }
            None => HostPattern::Id(Pattern::glob(text).map_err(at(0))?),
        };
        Ok(HostSelector { text: text.to_owned(), pattern })
    }
}

impl FromStr for HostSelector {
    type Err = SelectorError;

    /// Parses a host by itself: `ID`, a glob, or `@GROUP`; one `/` at the end is allowed.
    fn from_str(input: &str) -> Result<Self, SelectorError> {
        let text = match split_host(input) {
            Some((host, "")) => host,
            Some((host, _)) => {
                return Err(SelectorError::at(input, host.chars().count() + 1, "nothing after the host"));
            }
            None => input,
        };
        HostSelector::parse(input, text)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(input: &str) -> Result<Self, SelectorError> {
        if input.is_empty() {
            return Err(SelectorError::at(input, 0, "[HOST/]VM"));
        }
        let (host, vm, vm_offset) = match split_host(input) {
            // A leading '/' opens a regular expression, on any host.
            Some(("", _)) | None => (HostSelector::any(), input, 0),
            Some((host, vm)) => (HostSelector::parse(input, host)?, vm, host.chars().count() + 1),
        };
        let at = |base: usize| {
            move |error: PatternError| SelectorError::at(input, base + error.offset, error.expected)
        };
        let vm = if let Some(open) = vm.strip_prefix('/') {
            let regex = open.strip_suffix('/').filter(|regex| !regex.is_empty()).ok_or_else(|| {
                SelectorError::at(input, input.chars().count(), "/REGEX/, closed by a second '/'")
            })?;
            VmPattern::Name(Pattern::regex(regex).map_err(at(vm_offset + 1))?)
        } else if vm.is_empty() || vm == "*" {
            VmPattern::All
        } else {
            let pattern = Pattern::glob(vm).map_err(at(vm_offset))?;
            if let Some(slash) = vm.chars().position(|c| c == '/') {
                return Err(SelectorError::at(
                    input,
                    vm_offset + slash,
                    "a VM name, which cannot hold a '/'",
                ));
            }
            let named = host.ids().len().max(1) * pattern.names().len();
            if named as u64 > MAX_NAMES {
                let expected =
                    format!("numbers that stand for at most {MAX_NAMES} VMs on all hosts, not for {named}");
                return Err(SelectorError::at(input, 0, expected));
            }
            VmPattern::Name(pattern)
        };
        Ok(Selector { text: input.to_owned(), host, vm })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for HostSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Splits at the first `/` that is neither escaped nor inside `[…]` or `{…}`.
fn split_host(input: &str) -> Option<(&str, &str)> {
    let (mut escaped, mut braces) = (false, 0_usize);
    // Inside a class: the offset at which its first member stands, where a ']' is a member.
    let mut class: Option<usize> = None;
    for (at, c) in input.char_indices() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match (c, class) {
            ('\\', _) => escaped = true,
            ('!' | '^', Some(first)) if at == first => class = Some(at + 1),
            (']', Some(first)) if at > first => class = None,
            (_, Some(_)) => {}
            ('[', None) => class = Some(at + 1),
            ('{', None) => braces += 1,
            ('}', None) => braces = braces.saturating_sub(1),
            ('/', None) if braces == 0 => return Some((&input[..at], &input[at + 1..])),
            _ => {}
        }
    }
    None
}

/// The text that selects exactly the VM of this name: `\` before every character with a special meaning.
///
/// ```
/// assert_eq!(atp_executor::escape("web[1]*"), r"web\[1]\*");
/// ```
pub fn escape(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, '\\' | '*' | '?' | '[' | '{' | '}' | '/') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(id: &str, groups: &[&str]) -> HostInfo {
        groups.iter().fold(HostInfo::new(id, "127.0.0.1"), |host, group| host.with_group(*group))
    }

    fn selects(selector: &str, id: &str, vm: &str) -> bool {
        let selector: Selector = selector.parse().unwrap();
        selector.host().matches(&host(id, &["rack-1", "all"])) && selector.matches_vm(vm)
    }

    #[test]
    fn a_selector_without_a_host_is_for_every_host() {
        assert!(selects("web-*", "h1", "web-1"));
        assert!(selects("web-1", "h2", "web-1"));
        assert!(!selects("web-1", "h2", "web-2"));
    }

    #[test]
    fn hosts_are_globs_or_groups() {
        assert!(selects("h1/web-1", "h1", "web-1"));
        assert!(!selects("h1/web-1", "h2", "web-1"));
        assert!(selects("h{1,2}/*", "h2", "x"));
        assert!(selects("h[/1]/x", "h1", "x"));
        assert!(selects("@rack-1/web*", "h1", "web"));
        assert!(selects("@rack-?/", "h1", "anything"));
        assert!(!selects("@rack-2/", "h1", "anything"));
        assert!(!selects("@h1/", "h1", "anything"));
    }

    #[test]
    fn a_host_with_a_slash_is_all_vms_there() {
        assert!(selects("h1/", "h1", "any thing"));
        assert!(!selects("h1/", "h2", "x"));
    }

    #[test]
    fn regular_expressions_match_anywhere_in_the_name() {
        assert!(selects("/b-[0-9]$/", "h1", "web-7"));
        assert!(selects("h1//b-/", "h1", "web-7"));
        assert!(!selects("h1//^b-/", "h1", "web-7"));
        assert!("/web/".parse::<Selector>().unwrap().vm_names().is_empty());
    }

    #[test]
    fn names_are_distinguished_from_globs() {
        let names = |text: &str| text.parse::<Selector>().unwrap().vm_names().to_vec();
        assert_eq!(names("web-1"), ["web-1"]);
        assert_eq!(names(r"h1/web\*"), ["web*"]);
        assert_eq!(names("h1/web-[9-10]"), ["web-10", "web-9"]);
        assert!(names("h1/web*").is_empty());
        assert!(names("h1/").is_empty());
        let selector: Selector = "h1/x".parse().unwrap();
        assert_eq!((selector.host().ids(), selector.host().groups().len()), (&["h1".to_owned()][..], 0));
        let selector: Selector = "@g[9-10]/x".parse().unwrap();
        assert_eq!(selector.host().groups(), ["g10", "g9"]);
        assert!(selector.host().ids().is_empty());
    }

    #[test]
    fn numbers_stand_wherever_a_pattern_does() {
        for (selector, id, vm, is_selected) in [
            ("web-[1-100]", "h1", "web-57", true),
            ("h[1-12]/web-1", "h11", "web-1", true),
            ("h[1-12]/web-1", "h13", "web-1", false),
            ("h[1-10/3]/", "h7", "web-1", true),
            ("h[1:12]/web-[01:20]", "h12", "web-07", true),
            ("@rack-[1-10]/*", "h1", "x", true),
            ("@rack-[10-12]/*", "h1", "x", false),
        ] {
            assert_eq!(selects(selector, id, vm), is_selected, "{selector} {id}/{vm}");
        }
        let host: HostSelector = "h[1-12]".parse().unwrap();
        assert_eq!(host.ids().len(), 12);
    }

    #[test]
    fn hosts_times_vms_are_bounded() {
        let error = "h[1-1000]/vm[1-1000]".parse::<Selector>().unwrap_err();
        assert!(error.expected.contains("at most 100000 VMs"), "{error}");
        assert!("h[1-1000]/vm[1-100]".parse::<Selector>().is_ok());
    }

    #[test]
    fn errors_say_where_and_what() {
        for (input, position, expected) in [
            ("", 1, "[HOST/]VM"),
            ("h1/web-[", 8, "a ']'"),
            ("h[1/web", 2, "a ']'"),
            ("h1/{a,b", 4, "a '}'"),
            ("@rack[/x", 6, "a ']'"),
            ("@/x", 2, "the name of a group"),
            ("h1/a/b", 5, "cannot hold a '/'"),
            (r"a\/b", 3, "cannot hold a '/'"),
            ("{h1/a,h2/b}", 4, "cannot hold a '/'"),
            ("/abc", 5, "a second '/'"),
            ("/", 2, "a second '/'"),
            ("//", 3, "a second '/'"),
            ("h1//(a/", 5, "a regular expression"),
            (r"web\", 5, "a character after"),
            ("h1/web-[12]", 8, "one meaning"),
            ("web-[1-999999999]", 6, "at most 100000 names"),
        ] {
            let error = input.parse::<Selector>().unwrap_err();
            assert_eq!(error.position, position, "{input}: {error}");
            assert!(error.expected.contains(expected), "{input}: {error}");
            assert_eq!(error.input, input);
        }
    }

    #[test]
    fn a_host_by_itself() {
        for text in ["h1", "h*", "@rack-1", "h1/"] {
            assert!(text.parse::<HostSelector>().unwrap().matches(&host("h1", &["rack-1"])), "{text}");
        }
        assert_eq!("h1/web".parse::<HostSelector>().unwrap_err().position, 4);
        assert!("".parse::<HostSelector>().is_err());
        let all = Selector::all_of("@rack-1".parse().unwrap());
        assert_eq!(all.to_string(), "@rack-1/");
        assert!(all.is_all_vms());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(input in any::<String>()) {
            if let Ok(selector) = input.parse::<Selector>() {
                prop_assert_eq!(selector.to_string(), input);
            }
        }

        #[test]
        fn parsing_what_is_nearly_a_selector_never_panics(input in r"[]\[{}*?!^,@/\\a-c()+|$-]{0,24}") {
            match input.parse::<Selector>() {
                Ok(selector) => { selector.matches_vm("abc"); }
                Err(error) => prop_assert!((1..=input.chars().count() + 1).contains(&error.position), "{}", error),
            }
        }

        #[test]
        fn a_name_escaped_selects_that_name_and_no_other(
            name in r"[^/\n\x00]{1,20}",
            other in r"[^/\n\x00]{1,20}",
            id in "[A-Za-z0-9._-]{0,12}[A-Za-z0-9_-]",
        ) {
            let id: HostId = id.parse().unwrap();
            let parsed = [
                escape(&name).parse::<Selector>().unwrap(),
                format!("{id}/{}", escape(&name)).parse().unwrap(),
                Selector::of_vm(&id, &name),
                Selector::of_vm(&id, &name).to_string().parse().unwrap(),
            ];
            for selector in parsed {
                prop_assert_eq!(selector.vm_names(), std::slice::from_ref(&name));
                prop_assert!(selector.host().matches(&host(id.as_str(), &[])));
                prop_assert!(selector.matches_vm(&name));
                prop_assert_eq!(selector.matches_vm(&other), name == other);
            }
        }
    }
}
