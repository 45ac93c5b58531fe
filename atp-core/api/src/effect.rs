//! What a piece of work did to its target, as far as we know.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether anything happened on the far side.
///
/// Every error of ATP answers this question, because it decides whether the work may be repeated: work
/// whose effect is [`Unknown`](Effect::Unknown) is never retried by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Nothing reached the target.
    None,
    /// It happened: the target said so.
    Done,
    /// The request was sent, and no answer came, or one that does not say whether: it may have happened.
    #[serde(other)]
    Unknown,
}

impl Effect {
    /// The word used in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::None => "none",
            Effect::Done => "done",
            Effect::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
