//! Screenshots (`virDomainScreenshot`), which come as a stream.

use tokio::time::Instant;
use uuid::Uuid;
use virt::domain::Domain;
use virt::error::Error;
use virt::stream::Stream;

use super::LibvirtConnection;
use super::domain::{check_monitor, monitor_lane};
use crate::error::Result;

/// What one read of the stream takes at most, bytes: libvirt's own packets are no larger.
const READ_BYTES: usize = 256 * 1024;

/// A picture as libvirt gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawImage {
    /// Its form: `image/png` or `image/x-portable-pixmap`, by the hypervisor's choice.
    pub mime: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether these are all of them.
    pub complete: bool,
}

impl LibvirtConnection {
    /// A picture of a domain's screen (`virDomainScreenshot`), or its first `max_bytes` bytes; `screen` counts
    /// the domain's screens from 0.
    ///
    /// QEMU draws it, so this waits in line and refuses as [`monitor_command`](Self::monitor_command) does.
    ///
    /// # Errors
    /// Kinds [`VmNotRunning`](crate::ErrorKind::VmNotRunning), and
    /// [`NotSupported`](crate::ErrorKind::NotSupported) or [`LibvirtError`](crate::ErrorKind::LibvirtError) for a
    /// domain without such a screen.
    pub async fn screenshot(&self, uuid: Uuid, screen: u32, max_bytes: usize) -> Result<RawImage> {
        let lane = monitor_lane(uuid);
        let (busy_after, deadline) = (self.busy_after(lane), self.call_deadline());
        self.run("virDomainScreenshot", Some(lane), move |on| {
            let domain = on.domain(uuid)?;
            check_monitor(&domain, busy_after)?;
            let stream = Stream::new(&on.connect, 0)?;
            let taken = take(&domain, &stream, screen, max_bytes, deadline);
            if matches!(taken, Ok(RawImage { complete: true, .. })) {
                stream.finish()?;
            } else {
                // Left as it is, the daemon would keep the file behind it until the connection is closed. An
                // error means that it is over already.
                let _over = stream.abort();
            }
            Ok(taken?)
        })
        .await
    }
}

/// Reads until the end, the most bytes, or the deadline: by then the caller is gone.
fn take(
    domain: &Domain,
    stream: &Stream,
    screen: u32,
    max_bytes: usize,
    deadline: Instant,
) -> std::result::Result<RawImage, Error> {
    let mime = domain.screenshot(stream, screen, 0)?;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; READ_BYTES.min(max_bytes.max(1))];
    while Instant::now() < deadline {
        // Below 0 are, but for -1, the error: "would block", and a hole. A blocking stream that was not asked
        // for holes knows neither.
        let Ok(read) = usize::try_from(stream.recv(&mut chunk)?) else { break };
        if read == 0 {
            return Ok(RawImage { mime, bytes, complete: true });
        }
        let room = max_bytes - bytes.len();
        bytes.extend_from_slice(&chunk[..read.min(room)]);
        if read > room {
            break;
        }
    }
    Ok(RawImage { mime, bytes, complete: false })
}
