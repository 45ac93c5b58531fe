//! Who may ask: tokens, sessions of browsers, and what each may do.

mod caller;
mod cookie;
mod guard;
mod permit;
mod secret;
mod sessions;
mod tokens;

pub(crate) use caller::{Access, Caller, Peer};
pub(crate) use guard::{guard, session_cookie};
pub(crate) use permit::{
    has_verb, leave_out, may_see_host, may_see_vm, not_all_hosts, permit, permit_hosts, permit_other,
    permit_transfer, permit_verb, visible_part,
};
pub use secret::Secret;
pub(crate) use sessions::{COOKIE, Sessions};
pub use tokens::{NewToken, Token, TokenFile, TokensError};
