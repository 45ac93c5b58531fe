//! Which targets are meant, before any host is asked.

use std::collections::BTreeMap;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantNames};

use crate::domain::{DomainInfo, DomainState, StateReason};

/// Which VMs or hosts are meant, as a client writes it. The executor parses the selectors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Targets {
    /// What is chosen: `[HOST/]VM`, with globs, `@GROUP` or `/REGEX/`; several add up.
    pub selectors: Vec<String>,
    /// What is excluded, in the same form.
    pub exclude: Vec<String>,
    /// Only VMs in this state.
    pub state: StateFilter,
    /// Only VMs that have every one of these labels, through their host or, where that has no label of the key,
    /// themselves.
    pub labels: BTreeMap<String, String>,
}

impl Targets {
    /// What any of the selectors chooses.
    pub fn of<S: Into<String>>(selectors: impl IntoIterator<Item = S>) -> Self {
        Targets { selectors: selectors.into_iter().map(Into::into).collect(), ..Targets::default() }
    }
}

/// A state that VMs must be in to be selected.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumString,
    VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", parse_err_ty = FilterError, parse_err_fn = no_state)]
pub enum StateFilter {
    /// Any state.
    #[default]
    Any,
    /// Running.
    Running,
    /// Defined but not running.
    ShutOff,
    /// Paused, for any reason.
    Paused,
    /// Crashed, and kept as it was.
    Crashed,
    /// Suspended by the guest's own power management.
    #[serde(rename = "pmsuspended")]
    #[strum(serialize = "pmsuspended")]
    PmSuspended,
    /// Paused because reading or writing a disk failed.
    IoError,
    /// Shut off, with its memory in a file of the host (managed save).
    Saved,
    /// Paused on its way from one host to another. Most of a live migration a VM runs, and is not in this state.
    Migrating,
}

impl StateFilter {
    /// The words of all filters.
    pub const NAMES: &'static [&'static str] = <StateFilter as VariantNames>::VARIANTS;

    /// Whether a VM passes.
    pub fn matches(self, domain: &DomainInfo) -> bool {
        let reason = domain.reason;
        match self {
            StateFilter::Any => true,
            StateFilter::Running => domain.state.is_running(),
            StateFilter::ShutOff => domain.state == DomainState::ShutOff,
            StateFilter::Paused => domain.state == DomainState::Paused,
            StateFilter::Crashed => domain.state == DomainState::Crashed,
            StateFilter::PmSuspended => domain.state == DomainState::PmSuspended,
            StateFilter::IoError => reason == Some(StateReason::IoError),
            StateFilter::Saved => reason == Some(StateReason::Saved),
            StateFilter::Migrating => reason == Some(StateReason::Migrating),
        }
    }

    /// Whether all that a listing can say has to be asked for: which VMs have a saved memory is no part of their states.
    pub fn needs_full_listing(self) -> bool {
        self == StateFilter::Saved
    }
}

/// A label that VMs must have to be selected: `key=value`.
///
/// A VM has the labels of its host, which are in the configuration, and those in its own metadata
/// (`urn:atp:labels:1`). If both have the key, the host's value counts:
/// a host whose own label has another value need not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFilter {
    /// The label's key.
    pub key: String,
    /// The value it must have.
    pub value: String,
}

impl LabelFilter {
    /// Whether it is among these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(&self.key) == Some(&self.value)
    }

    /// Whether a VM of a host with these labels can have it.
    pub fn may_match(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(&self.key).is_none_or(|value| *value == self.value)
    }
}

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, not {input:?}")]
pub struct FilterError {
    /// The text.
    pub input: String,
    /// What it should be.
    pub expected: &'static str,
}

fn no_state(input: &str) -> FilterError {
    FilterError {
        input: input.to_owned(),
        expected: "a state (any, running, shut-off, paused, crashed, pmsuspended, io-error, saved or migrating)",
    }
}

impl FromStr for LabelFilter {
    type Err = FilterError;

    fn from_str(input: &str) -> Result<Self, FilterError> {
        match input.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(LabelFilter { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err(FilterError { input: input.to_owned(), expected: "a label (key=value)" }),
        }
    }
}
