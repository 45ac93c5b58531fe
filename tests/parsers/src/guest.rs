//! Data from a guest through its agent. A guest may send anything.

use std::sync::Arc;

use atp_protocol::files::{self, Push, Source, TransferPolicy};
use atp_protocol::{Carrier, Peer, ProtocolError, guest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use tokio::time::{Duration, Instant};

use crate::{Fixed, runtime, text};

/// An agent whose programs all print the same text and exit successfully.
struct Prints(String);

impl Carrier for Prints {
    async fn send(&self, _: Peer, command: &str, _: Instant) -> Result<String, ProtocolError> {
        let reply = match command {
            _ if command.contains("guest-exec-status") => {
                json!({"return": {"exited": true, "exitcode": 0, "out-data": self.0}})
            }
            _ if command.contains("guest-exec") => json!({"return": {"pid": 1}}),
            _ => json!({"error": {"class": "GenericError", "desc": "no"}}),
        };
        Ok(reply.to_string())
    }

    fn command_max(&self, _: Peer) -> usize {
        usize::MAX
    }
}

/// The output of the guest's shell about files.
pub(crate) fn guest_files(bytes: &[u8]) {
    let carrier = Prints(BASE64.encode(bytes));
    runtime().block_on(async {
        let deadline = Instant::now() + Duration::from_secs(5);
        if let Ok(entries) = files::list(&carrier, "/", deadline).await {
            for name in entries.iter().map(|entry| entry.name.as_slice()) {
                assert!(!name.is_empty() && !name.contains(&b'/') && !name.contains(&0), "{name:?}");
                assert!(name != b"." && name != b"..", "{name:?}");
            }
            assert!(entries.is_sorted_by(|a, b| a.name <= b.name), "{entries:?}");
        }
        if let Ok(info) = files::stat(&carrier, "/", deadline).await {
            assert!(info.mode <= 0o7777, "{info:?}");
        }
        let source = Arc::new(Source::from_bytes("name", b"content", 0o644));
        let mut push = Push::new(source, "/to", TransferPolicy::default());
        assert!(push.run(&carrier, deadline, &mut |_| {}).await.is_err(), "nothing was written there");
    });
}

/// The agent's answers about the guest's system.
pub(crate) fn guest_system(bytes: &[u8]) {
    let carrier = Fixed(text(bytes));
    runtime().block_on(async {
        let deadline = Instant::now() + Duration::from_secs(5);
        if let Ok(interfaces) = guest::interfaces(&carrier, deadline).await {
            let addresses = interfaces.iter().flat_map(|interface| &interface.addresses);
            let longest = |address: &guest::Address| if address.ip.is_ipv4() { 32 } else { 128 };
            for address in addresses {
                assert!(address.prefix <= longest(address), "{address:?}");
            }
        }
        // The results are checked where they are used; here it is enough that no input causes a panic.
        let _ = guest::os(&carrier, deadline).await;
        let _ = guest::time(&carrier, deadline).await;
        let _ = guest::timezone(&carrier, deadline).await;
        let _ = guest::users(&carrier, deadline).await;
        let _ = guest::disks(&carrier, deadline).await;
        let _ = guest::filesystems(&carrier, deadline).await;
        let _ = guest::ssh_keys(&carrier, "root", deadline).await;
        let _ = guest::frozen(&carrier, deadline).await;
    });
}
