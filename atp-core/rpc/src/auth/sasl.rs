//! Authentication by SASL: SCRAM and PLAIN over what is private already, or GSSAPI.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::Way;
use super::credentials::Credentials;
use super::exchange::{Data, Reply, call};
#[cfg(feature = "gssapi")]
use super::gssapi;
use super::scram::{Hash, Proof, Scram};
use crate::connect_error::ConnectFailure;
use crate::link::Link;
use crate::numbers::procedure;
use crate::uri::Transport;

/// The mechanisms that are here, the best first.
const MECHANISMS: [(&str, Option<Hash>); 4] = [
    ("SCRAM-SHA-512", Some(Hash::Sha512)),
    ("SCRAM-SHA-256", Some(Hash::Sha256)),
    ("SCRAM-SHA-1", Some(Hash::Sha1)),
    ("PLAIN", None),
];

/// Why none of the daemon's mechanisms serves.
const KNOWN: &str = if cfg!(feature = "gssapi") {
    "SCRAM-SHA-512, -256, -1, PLAIN and GSSAPI are known here"
} else {
    "SCRAM-SHA-512, -256, -1 and PLAIN are known here; GSSAPI is a feature that is not built in"
};
const IN_THE_CLEAR: &str = if cfg!(feature = "gssapi") {
    "over plain TCP it has to be GSSAPI: use TLS, ssh or a socket"
} else {
    "over plain TCP it has to be GSSAPI, a feature that is not built in: use TLS, ssh or a socket"
};

/// Bytes of a nonce, before they are encoded.
const NONCE: usize = 18;

/// Authenticates by the best mechanism, or by the one that is wanted.
pub(super) async fn authenticate(
    link: &Link,
    way: &Way<'_>,
    wanted: Option<&str>,
    credentials: Result<Credentials, ConnectFailure>,
) -> Result<(), ConnectFailure> {
    let offered: String = call(link, procedure::AUTH_SASL_INIT, &()).await?;
    let refuse = |reason| Err(ConnectFailure::Mechanism { offered: format!("SASL {offered}"), reason });
    let is_offered =
        |name: &str| offered.split(',').any(|one| one == name) && wanted.is_none_or(|wanted| wanted == name);
    // Daemons encrypt by Kerberos over plain TCP alone: where TLS or ssh does that, they offer no layer of their own.
    if !way.private && matches!(way.uri.transport, Transport::Tls | Transport::Ssh) {
        return Err(ConnectFailure::Unverified { offered: format!("SASL {offered}") });
    }
    // Only mechanisms with a password need a private way.
    let by_password = MECHANISMS.iter().find(|(name, _)| way.private && is_offered(name));
    #[cfg(feature = "gssapi")]
    if is_offered(gssapi::NAME) && (by_password.is_none() || credentials.is_err()) {
        let host = way.uri.host.as_deref().unwrap_or("localhost");
        return gssapi::authenticate(link, host, way.private, way.layer).await;
    }
    let Some((name, hash)) = by_password else {
        return refuse(if way.private { KNOWN } else { IN_THE_CLEAR });
    };
    let Credentials { user, password } = credentials?;
    let Some(hash) = *hash else {
        let message = format!("\0{user}\0{password}");
        let start = (*name, Data(Some(message.as_bytes())));
        let reply: Reply = call(link, procedure::AUTH_SASL_START, &start).await?;
        return if reply.complete { Ok(()) } else { Err(ConnectFailure::Sasl("PLAIN did not end")) };
    };
    let nonce = nonce()?;
    let (scram, first) = Scram::begin(hash, &user, &password, &nonce).ok_or(ConnectFailure::Sasl(
        "the user name or the password holds a character that may not be there",
    ))?;
    let start = (*name, Data(Some(first.as_bytes())));
    let challenge: Reply = call(link, procedure::AUTH_SASL_START, &start).await?;
    // Many rounds take a while, which the runtime is not to wait for.
    let answer = tokio::task::spawn_blocking(move || scram.answer(&challenge.data)).await;
    let (answer, proof) = answer
        .map_err(|_| ConnectFailure::Sasl("the answer could not be worked out"))?
        .map_err(ConnectFailure::Sasl)?;
    let end: Reply = call(link, procedure::AUTH_SASL_STEP, &Data(Some(answer.as_bytes()))).await?;
    check(&proof, &end)?;
    if end.complete {
        return Ok(());
    }
    // The daemon's proof was a message of its own, to which there is an empty answer.
    let last: Reply = call(link, procedure::AUTH_SASL_STEP, &Data(None)).await?;
    if last.complete { Ok(()) } else { Err(ConnectFailure::Sasl("SCRAM did not end")) }
}

fn check(proof: &Proof, reply: &Reply) -> Result<(), ConnectFailure> {
    let unproven = ConnectFailure::Sasl("the daemon did not prove that it knows the password");
    if proof.holds(&reply.data) { Ok(()) } else { Err(unproven) }
}

fn nonce() -> Result<String, ConnectFailure> {
    let mut bytes = [0; NONCE];
    getrandom::fill(&mut bytes).map_err(|_| ConnectFailure::Sasl("the system has no random numbers"))?;
    Ok(BASE64_STANDARD.encode(bytes))
}
