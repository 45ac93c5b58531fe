//! One host: its identity and configuration, its credentials, and the state its connections share.

mod credentials;
mod info;
pub(crate) mod state;

pub use atp_api::{HostId, InvalidHostId};
pub use credentials::{Credentials, Password, PasswordSource};
pub use info::HostInfo;
