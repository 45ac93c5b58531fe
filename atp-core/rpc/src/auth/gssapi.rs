//! GSSAPI (RFC 4752) with Kerberos: the ticket is the user's, from `kinit`. Over TCP it protects what follows too.

use libgssapi::context::{ClientCtx, CtxFlags, SecurityContext};
use libgssapi::error::Error;
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_HOSTBASED_SERVICE};

use super::exchange::{Data, Reply, call};
use super::layer::{Layer, LayerSlot, MOST};
use crate::connect_error::ConnectFailure;
use crate::link::Link;
use crate::numbers::procedure;
use crate::settings::asking;

/// Its name in SASL.
pub(super) const NAME: &str = "GSSAPI";

/// The bits of a security layer: none, and one that encrypts.
const NO_LAYER: u8 = 1;
const ENCRYPTED: u8 = 4;

/// The most messages that a daemon may need.
const MOST_STEPS: usize = 8;

/// Authenticates at the daemon of a host. Over a way that is not private, everything after it is encrypted.
pub(super) async fn authenticate(
    link: &Link,
    host: &str,
    private: bool,
    slot: &LayerSlot,
) -> Result<(), ConnectFailure> {
    let service = format!("libvirt@{host}");
    let target = Name::new(service.as_bytes(), Some(GSS_NT_HOSTBASED_SERVICE)).map_err(failed)?;
    let flags = CtxFlags::GSS_C_MUTUAL_FLAG
        | CtxFlags::GSS_C_SEQUENCE_FLAG
        | CtxFlags::GSS_C_INTEG_FLAG
        | CtxFlags::GSS_C_CONF_FLAG;
    let context = ClientCtx::new(None, target, flags, Some(GSS_MECH_KRB5));
    let (mut context, mut token) = step(context, None).await?;
    let start = (NAME, Data(Some(token.as_deref().unwrap_or_default())));
    let mut reply: Reply = call(link, procedure::AUTH_SASL_START, &start).await?;
    for _ in 0..MOST_STEPS {
        if token.is_none() {
            break;
        }
        (context, token) = step(context, Some(reply.data)).await?;
        // Without a token the context is there, and the daemon waits for an empty answer.
        let answer = Data(Some(token.as_deref().unwrap_or_default()));
        reply = call(link, procedure::AUTH_SASL_STEP, &answer).await?;
    }
    let offer = context.unwrap(&reply.data).map_err(failed)?;
    let Some([layers, size @ ..]) = offer.first_chunk::<4>() else {
        return Err(ConnectFailure::Sasl("the daemon's offer of security layers is too short"));
    };
    let layer = if private { NO_LAYER } else { ENCRYPTED };
    if layers & layer == 0 {
        return Err(ConnectFailure::Sasl(
            "GSSAPI: the daemon does not offer the security layer that is needed",
        ));
    }
    let size = u32::from_be_bytes([0, size[0], size[1], size[2]]) as usize;
    // Without a layer the size has to be 0.
    let ours = if private { 0 } else { MOST };
    let [_, ours @ ..] = (ours as u32).to_be_bytes();
    let choice = [layer, ours[0], ours[1], ours[2]];
    let choice = context.wrap(false, &choice).map_err(failed)?;
    let last: Reply = call(link, procedure::AUTH_SASL_STEP, &Data(Some(&choice))).await?;
    if !last.complete {
        return Err(ConnectFailure::Sasl("GSSAPI did not end"));
    }
    if !private {
        slot.set(Layer::new(context, size));
    }
    Ok(())
}

/// One step of the context. It may ask the realm's servers, so it runs on a thread that may wait.
async fn step(
    mut context: ClientCtx,
    token: Option<Vec<u8>>,
) -> Result<(ClientCtx, Option<Vec<u8>>), ConnectFailure> {
    asking(move || {
        let answer = context.step(token.as_deref(), None).map_err(failed)?;
        let answer = answer.map(|answer| answer.to_vec());
        Ok((context, answer))
    })
    .await
}

fn failed(error: Error) -> ConnectFailure {
    ConnectFailure::Kerberos(error.to_string())
}
