//! Sends commands through libvirt (`virDomainQemuMonitorCommand`, `virDomainQemuAgentCommand`).

use std::borrow::Borrow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atp_transport::{ErrorKind, LibvirtConnection, TransportError};
use tokio::time::{self, Instant};
use uuid::Uuid;

use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};
use crate::peer::Peer;
use crate::refusal::Refusal;

/// The longest string of libvirt's RPC, bytes (`REMOTE_STRING_MAX`). It limits commands and replies.
const STRING_MAX: usize = 4 * 1024 * 1024;

/// The longest reply of an agent that a daemon reads, bytes, as it writes that in its message.
const AGENT_REPLY_MAX: &str = "10485760";

/// `VIR_ERR_SYSTEM_ERROR`.
const SYSTEM_ERROR: u32 = 38;

/// `VIR_ERR_RPC`.
const RPC_ERROR: u32 = 39;

/// The longest command that is sent to an agent, bytes.
///
/// A command that does not fit into the socket buffer of the agent's channel (212,992 bytes unless the host sets
/// another `wmem_default`) reaches the agent corrupted: when the buffer is full, libvirt starts to send the command
/// again from its beginning. The agent answers neither this command nor the next one.
const AGENT_COMMAND_MAX: usize = 128 * 1024;

/// A guest that has used more processor time than this has finished booting.
const BOOT_CPU_TIME: Duration = Duration::from_secs(60);

/// A guest counts as busy if it uses at least one part in this number of one processor. A guest that boots on an
/// overloaded host gets no more; an idle guest, even an emulated one, uses less than half of that.
const BUSY_SHARE: u32 = 5;
const BUSY_WINDOW: Duration = Duration::from_millis(200);

/// Sends commands to one domain over a leased connection, which it borrows or owns.
///
/// A lease stands for one call. Carriers that share a lease, whichever VMs they lead to, take the places of other leases, and
/// wait where there is none. For work on several VMs take one lease for each.
pub struct LibvirtCarrier<C> {
    connection: C,
    domain: Uuid,
}

impl<C: Borrow<LibvirtConnection>> LibvirtCarrier<C> {
    /// Creates a carrier to the domain with this UUID.
    pub fn new(connection: C, domain: Uuid) -> Self {
        LibvirtCarrier { connection, domain }
    }
}

impl<C: Borrow<LibvirtConnection> + Send + Sync> Carrier for LibvirtCarrier<C> {
    /// Ends at `deadline`, at the lease's deadline or at the call's own time limit, whichever is first. A command that
    /// still waits for its turn on the connection at that time was not sent, and will not be.
    async fn send(&self, peer: Peer, command: &str, deadline: Instant) -> Result<String> {
        check_length(peer, command.len())?;
        if Instant::now() >= deadline {
            return Err(ProtocolError::Timeout { peer, sent: false });
        }
        let connection = self.connection.borrow();
        let is_sent = AtomicBool::new(false);
        let sent = || is_sent.store(true, Ordering::Relaxed);
        let call = async {
            match peer {
                Peer::Monitor => connection.monitor_command_with(self.domain, command, sent).await,
                Peer::Agent => connection.agent_command_with(self.domain, command, sent).await,
            }
        };
        // Dropping the future drops the call: if it has not been handed over by now, it never is.
        let result = time::timeout_at(deadline, call)
            .await
            .map_err(|_| ProtocolError::Timeout { peer, sent: is_sent.load(Ordering::Relaxed) })?;
        match result {
            Ok(reply) => Ok(reply),
            Err(error) if error.kind() == ErrorKind::AgentNotConnected => {
                // If this cannot be found out, the error that there is no agent is still correct.
                match time::timeout_at(deadline, self.booting()).await {
                    Ok(Some(cpu_time)) => {
                        Err(ProtocolError::GuestBooting { cpu_time, source: Box::new(error) })
                    }
                    _ => Err(error.into()),
                }
            }
            Err(error) => Err(translate(peer, error)),
        }
    }

    fn command_max(&self, peer: Peer) -> usize {
        command_max(peer)
    }
}

impl<C: Borrow<LibvirtConnection> + Send + Sync> LibvirtCarrier<C> {
    /// Returns the processor time that the guest has used if the guest seems to be booting: it has used little, and it
    /// is busy using more. libvirt does not report how long a guest has been running.
    async fn booting(&self) -> Option<Duration> {
        let connection = self.connection.borrow();
        let before = connection.domain_cpu_time(self.domain).await.ok()?;
        if before > BOOT_CPU_TIME {
            return None;
        }
        time::sleep(BUSY_WINDOW).await;
        let after = connection.domain_cpu_time(self.domain).await.ok()?;
        (after.checked_sub(before)? >= BUSY_WINDOW / BUSY_SHARE).then_some(after)
    }
}

fn command_max(peer: Peer) -> usize {
    match peer {
        Peer::Monitor => STRING_MAX,
        Peer::Agent => AGENT_COMMAND_MAX,
    }
}

/// Refuses a command that is too long before it is sent. For a command over `STRING_MAX`, of which nothing is sent, the
/// C library gives the same message as for a reply over it, when the command has been executed.
fn check_length(peer: Peer, size: usize) -> Result<()> {
    let limit = command_max(peer);
    if size > limit { Err(ProtocolError::CommandTooLarge { size, limit }) } else { Ok(()) }
}

/// Recognises in libvirt's message errors that are not libvirt's own: an error reply of the guest agent, of which
/// libvirt keeps only the description, and a reply that is too large for the RPC.
fn translate(peer: Peer, error: TransportError) -> ProtocolError {
    let Some(libvirt) = error.libvirt() else {
        return error.into();
    };
    // Longer than the 10 MiB of an agent's reply that the daemon reads, or longer than `STRING_MAX`: that is the only error
    // with this number that a daemon has for a command. By number, as an internal error may quote what the guest sent; and
    // by the figure, which stands in the message in every language.
    let over_daemon = libvirt.code == SYSTEM_ERROR && libvirt.message.contains(AGENT_REPLY_MAX);
    if over_daemon || libvirt.code == RPC_ERROR {
        let libvirt = Some(libvirt.clone());
        return ProtocolError::OutputTooLarge { peer, channel_lost: over_daemon, libvirt };
    }
    match Refusal::from_libvirt(libvirt) {
        Some(refusal) if peer == Peer::Agent => ProtocolError::Refused(Box::new(refusal)),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use atp_transport::{Effect, HostId, HostInfo, LibvirtError, TransportConfig, TransportManager};

    use super::*;

    fn libvirt(code: u32, domain: u32, message: &str) -> TransportError {
        TransportError::Libvirt {
            host: "h1".parse::<HostId>().unwrap(),
            operation: "virDomainQemuAgentCommand",
            kind: ErrorKind::LibvirtError,
            source: LibvirtError { code, domain, level: 2, message: message.into() },
        }
    }

    #[test]
    fn an_agents_error_inside_libvirts_message_becomes_a_refusal() {
        let message = "internal error: unable to execute QEMU agent command 'guest-exec': \
                       Command guest-exec has been disabled: the command is not allowed";
        let error = translate(Peer::Agent, libvirt(1, 10, message));
        assert_eq!((error.kind().as_str(), error.effect()), ("agent-command-disabled", Effect::None));
        assert!(error.hint().contains("block-rpcs"), "{}", error.hint());
        assert_eq!(error.libvirt().unwrap().code, 1);
        assert_eq!(
            error.to_string(),
            "the guest agent refused guest-exec: Command guest-exec has been disabled: the command is not allowed"
        );
    }

    #[test]
    fn what_the_guest_sent_does_not_pass_for_libvirts_words() {
        for message in [
            "internal error: cannot parse json No complete agent response found in: parse error",
            "internal error: Unknown JSON reply 'Unable to encode message payload'",
            "internal error: Unknown JSON reply 'unable to execute QEMU agent command 'x': y'",
            "internal error: unable to execute QEMU agent command 'guest-exec'",
        ] {
            let error = translate(Peer::Agent, libvirt(1, 10, message));
            assert_eq!(
                (error.kind().as_str(), error.effect()),
                ("libvirt-error", Effect::Unknown),
                "{message}"
            );
        }
    }

    #[test]
    fn other_errors_of_libvirt_stay_transport_errors() {
        for peer in [Peer::Agent, Peer::Monitor] {
            let error = translate(peer, libvirt(1, 10, "internal error: something else"));
            assert_eq!(error.kind(), "libvirt-error");
        }
        let words = "unable to execute QEMU agent command 'x': y";
        assert_eq!(translate(Peer::Monitor, libvirt(1, 10, words)).kind(), "libvirt-error");
    }

    #[test]
    fn a_reply_that_is_too_large_means_that_the_command_was_done() {
        let carried = "Kann Inhalt der Nachricht nicht verschlüsseln";
        let read = "No complete agent response found in 10485760 bytes: Numerical result out of range";
        for (code, domain, message, word) in [(39, 7, carried, "to a file"), (38, 0, read, "restart")] {
            let error = translate(Peer::Agent, libvirt(code, domain, message));
            assert_eq!((error.kind().as_str(), error.effect()), ("output-too-large", Effect::Done));
            assert!(error.hint().contains(word), "{}", error.hint());
            assert_eq!(error.libvirt().unwrap().code, code);
        }
    }

    #[test]
    fn a_command_that_is_too_long_is_not_sent() {
        for (peer, limit) in [(Peer::Agent, AGENT_COMMAND_MAX), (Peer::Monitor, STRING_MAX)] {
            assert!(check_length(peer, limit).is_ok());
            let error = check_length(peer, limit + 1).unwrap_err();
            assert_eq!((error.kind().as_str(), error.effect()), ("command-too-large", Effect::None));
        }
    }

    /// A call occupies the connection for as long as the test wants, as a call to a VM that hangs would.
    #[cfg(feature = "library")]
    #[tokio::test]
    async fn a_command_that_waited_for_the_connection_until_the_deadline_was_not_sent() {
        let mut config = TransportConfig::default();
        // Else the pool opens another, since this one is highly loaded, and the command goes there.
        config.pool.max_connections_per_host = 1;
        let manager = TransportManager::new(config);
        manager.add_host(HostInfo::from_uri("demo", "test:///default")).await.unwrap();
        let (begun, under_way) = tokio::sync::oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        let work = async |lease: LibvirtConnection| {
            let domain = lease.list_domains().await?[0].uuid;
            let hangs = lease.run_blocking("hangs", move |_connect| {
                let _heard = begun.send(());
                let _gone = released.recv();
                Ok(())
            });
            let waits = async {
                under_way.await.unwrap();
                let carrier = LibvirtCarrier::new(&lease, domain);
                let mut errors = Vec::new();
                for peer in [Peer::Monitor, Peer::Agent] {
                    let deadline = Instant::now() + Duration::from_millis(20);
                    errors.push(carrier.send(peer, r#"{"execute":"any"}"#, deadline).await.unwrap_err());
                }
                drop(release);
                errors
            };
            let (hung, errors) = tokio::join!(hangs, waits);
            hung.map(|()| errors)
        };
        for error in manager.execute_on_host("demo", work).await.unwrap() {
            assert!(matches!(error, ProtocolError::Timeout { sent: false, .. }), "{error:?}");
            assert_eq!(error.effect(), Effect::None);
        }
    }
}
