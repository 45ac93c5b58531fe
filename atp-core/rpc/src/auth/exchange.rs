//! The messages of SASL, as libvirt carries them.

use crate::error::CallError;
use crate::link::Link;
use crate::numbers::Procedure;
use crate::xdr::{self, FromXdr, Reader, ToXdr, Writer};

/// The most bytes in a message (`REMOTE_AUTH_SASL_DATA_MAX`).
const MAX_DATA: usize = 65_536;

/// Data that may be missing, which is not the same as empty. Each byte takes a word.
pub(super) struct Data<'a>(pub(super) Option<&'a [u8]>);

impl ToXdr for Data<'_> {
    fn write(&self, to: &mut Writer) -> xdr::Result<()> {
        self.0.is_none().write(to)?;
        to.chars("SASL data", self.0.unwrap_or_default(), MAX_DATA)
    }
}

/// The daemon's message.
pub(super) struct Reply {
    pub(super) complete: bool,
    pub(super) data: Vec<u8>,
}

impl FromXdr for Reply {
    const MIN_SIZE: usize = 12;

    fn read(from: &mut Reader<'_>) -> xdr::Result<Self> {
        let (complete, _is_null) = <(bool, bool)>::read(from)?;
        Ok(Reply { complete, data: from.chars("SASL data", MAX_DATA)? })
    }
}

/// Makes one of SASL's calls.
pub(super) async fn call<T: FromXdr>(
    link: &Link,
    procedure: Procedure,
    arguments: &impl ToXdr,
) -> Result<T, CallError> {
    let reply = link.call(procedure, arguments, None).await?;
    xdr::decode(&reply).map_err(|source| CallError::Reply { procedure, source })
}
