//! Files carried into guests and back, and looked at there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use atp_e2e::{Bed, bed, within};
use atp_protocol::files::{FileKind, Pull, Push, Source, TransferPolicy, list, stat};
use atp_protocol::{ExecSpec, LibvirtCarrier, ProtocolError, exec};
use atp_transport::{LibvirtConnection, TransportConfig};

use crate::library::{in_seconds, manager};

/// Longest any of these tests may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs work on `h1/vm1` over a connection leased for it.
pub(crate) async fn on_guest<T, F, Fut>(bed: &Bed, work: F) -> Result<T, ProtocolError>
where
    F: FnOnce(LibvirtConnection, uuid::Uuid) -> Fut,
    Fut: Future<Output = Result<T, ProtocolError>>,
{
    let manager = manager(bed, TransportConfig::default()).await;
    let uuid = bed.host("h1").unwrap().guest("vm1").unwrap().uuid().parse().unwrap();
    manager.execute_on_host_with("h1", in_seconds(280), |connection| work(connection, uuid)).await
}

/// A folder of the test's own here, empty.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Bytes without a pattern that a mistake could keep.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend((state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn sixty_four_megabytes_each_way_are_the_same_bytes() {
    let bed = bed();
    let folder = folder("files");
    let (original, copy) = (folder.join("original"), folder.join("copy"));
    fs::write(&original, noise(64 << 20)).unwrap();
    fs::set_permissions(&original, fs::Permissions::from_mode(0o640)).unwrap();
    within(LIMIT, async {
        on_guest(&bed, |connection, uuid| async move {
            let carrier = LibvirtCarrier::new(&connection, uuid);
            let deadline = connection.deadline().unwrap();
            exec::run(&carrier, &ExecSpec::new("mount-data"), deadline).await?;
            let began = Instant::now();
            let source = Arc::new(Source::open(&original).await?);
            println!("hash {:?}", began.elapsed());
            let began = Instant::now();
            let mut push = Push::new(source.clone(), "/data/copy", TransferPolicy::default());
            let mut told = Vec::new();
            let pushed = push.run(&carrier, deadline, &mut |progress| told.push(progress)).await?;
            println!("push {:?}", began.elapsed());
            assert_eq!((pushed.size, pushed.resumed_at, pushed.digest), (64 << 20, 0, source.digest()));
            let began = Instant::now();
            let mut pull = Pull::new("/data/copy", &copy, TransferPolicy::default());
            let pulled = pull.run(&carrier, deadline, &mut |_| {}).await?;
            println!("pull {:?}", began.elapsed());
            assert_eq!(pulled.info.mode, 0o640);
            assert!(fs::read(&original).unwrap() == fs::read(&copy).unwrap());
            let entries = list(&carrier, "/data", deadline).await?;
            println!("{entries:?}");
            println!("{:?}", stat(&carrier, "/data/copy", deadline).await?);
            let _ = FileKind::File;
            Ok(())
        })
        .await
        .unwrap();
    });
}
