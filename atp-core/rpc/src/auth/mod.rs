//! Who we are: what the daemon asks for before anything else.

mod credentials;
mod exchange;
#[cfg(feature = "gssapi")]
mod gssapi;
#[cfg(feature = "gssapi")]
mod layer;
mod sasl;
mod scram;

use crate::connect_error::ConnectFailure;
use crate::error::CallError;
use crate::greet::Offered;
use crate::link::Link;
use crate::numbers::procedure;
use crate::options::ConnectOptions;
use crate::uri::Uri;

pub use credentials::Credentials;
#[cfg(feature = "gssapi")]
pub(crate) use layer::{LayerSlot, Layered};

/// `remote_auth_type`.
const NONE: i32 = 0;
const SASL: i32 = 1;
const POLKIT: i32 = 2;

/// The way to a daemon, as far as it matters to authentication.
pub(crate) struct Way<'a> {
    pub(crate) uri: &'a Uri,
    /// Whether no third party can read along, so that a password may be sent.
    pub(crate) private: bool,
    /// Where a mechanism puts what encrypts the rest.
    #[cfg(feature = "gssapi")]
    pub(crate) layer: &'a LayerSlot,
}

/// Authenticates as the daemon wants it.
pub(crate) async fn authenticate(
    link: &Link,
    Offered(offered): Offered,
    way: &Way<'_>,
    options: &ConnectOptions,
) -> Result<(), ConnectFailure> {
    let uri = way.uri;
    let wanted = match uri.parameter("auth") {
        None => offered.first().copied().unwrap_or(NONE),
        Some(_) if offered.is_empty() => NONE,
        Some(word) => {
            let wanted = word.split('.').next();
            let known = |method: &i32| wanted == Some(name(*method));
            offered.iter().copied().find(known).ok_or_else(|| ConnectFailure::Mechanism {
                offered: offered.iter().map(|method| name(*method)).collect::<Vec<_>>().join(", "),
                reason: "that is not what auth= in the URI asks for",
            })?
        }
    };
    match wanted {
        NONE => Ok(()),
        POLKIT => {
            let asked = link.call(procedure::AUTH_POLKIT, &(), None).await;
            asked.map(drop).map_err(|error| match error {
                CallError::Remote { source, .. } => ConnectFailure::Polkit(source),
                other => other.into(),
            })
        }
        SASL => {
            let mechanism = uri.parameter("auth").and_then(|word| word.strip_prefix("sasl."));
            let credentials = match &options.credentials {
                Some(given) => Ok(given.clone()),
                None => credentials::find(uri).await,
            };
            sasl::authenticate(link, way, mechanism, credentials).await
        }
        other => Err(ConnectFailure::Mechanism {
            offered: name(other).to_owned(),
            reason: "which is not known here",
        }),
    }
}

fn name(method: i32) -> &'static str {
    match method {
        NONE => "none",
        SASL => "sasl",
        POLKIT => "polkit",
        _ => "an unknown method",
    }
}
