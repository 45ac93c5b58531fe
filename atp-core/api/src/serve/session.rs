//! Who a client is to the service.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantArray};

/// What the owner of a token may do; each role may do what those before it may.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Role {
    /// Looks: all reads, and the verbs that only look at a VM or host.
    Viewer,
    /// Works: all verbs too, and ends its own runs.
    Operator,
    /// Also ends and resumes the runs of others.
    Admin,
}

impl Role {
    /// Every role, from the least to the most.
    pub const ALL: &'static [Role] = Role::VARIANTS;

    /// The word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The request for a session of a browser. [`Debug`](fmt::Debug) does not show the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Login {
    /// The token, as it was printed when it was made.
    pub token: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

/// Who the client is, and what it may do. [`Debug`](fmt::Debug) does not show the word against forged requests.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    /// The token's name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The VMs that it may look at and work on. Every VM if there are none.
    pub selectors: Vec<String>,
    /// The verbs that it may use, of those of its role. All of them if there are none.
    pub verbs: Vec<String>,
    /// Whether the service refuses all work.
    pub read_only: bool,
    /// What a browser's session sends as `X-ATP-CSRF` with each request that is not a read; none for a client that sends its
    /// token with each request.
    pub csrf: Option<String>,
    /// The version of the program that serves.
    pub version: String,
}

impl fmt::Debug for SessionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionView")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}
