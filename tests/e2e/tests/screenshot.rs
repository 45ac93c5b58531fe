//! Screenshots.

use std::time::Duration;

use atp_e2e::{bed, within};
use atp_protocol::ProtocolError;
use atp_protocol::input::ScreenSize;
use atp_protocol::screenshot::{self, ScreenshotLimits};
use atp_transport::{ErrorKind, LibvirtConnection, TransportManager};
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{in_seconds, manager};

/// Time limit of each test.
const LIMIT: Duration = Duration::from_secs(180);
/// The size of the text console.
const CONSOLE: ScreenSize = ScreenSize { width: 720, height: 400 };

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn take(
    manager: &TransportManager,
    vm: Uuid,
    screen: u32,
    limits: ScreenshotLimits,
) -> Result<screenshot::Screenshot, ProtocolError> {
    let work = |connection: LibvirtConnection| async move {
        screenshot::take(&connection, vm, screen, limits, deadline()).await
    };
    manager.execute_on_host_with("h1", in_seconds(60), work).await
}

#[test]
fn the_console_of_a_guest_is_a_png_of_its_size() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    let vm: Uuid = guest.uuid().parse().unwrap();
    within(LIMIT, async {
        let manager = manager(&bed, atp_e2e::config()).await;
        let shot = take(&manager, vm, 0, ScreenshotLimits::default()).await.unwrap();
        assert_eq!(shot.size, CONSOLE);
        let mut reader = png::Decoder::new(std::io::Cursor::new(&shot.png)).read_info().unwrap();
        let info = reader.info();
        assert_eq!((info.width, info.height), (CONSOLE.width, CONSOLE.height));
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert!(pixels.iter().any(|byte| *byte != pixels[0]), "all of it is one colour");

        let size = |connection: LibvirtConnection| async move {
            screenshot::screen_size(&connection, vm, 0, deadline()).await
        };
        assert_eq!(manager.execute_on_host("h1", size).await.unwrap(), CONSOLE);
    });
}

#[test]
fn an_error_leaves_no_stream_open() {
    let bed = bed();
    let guest = bed.host("h1").unwrap().guest("vm1").unwrap();
    let vm: Uuid = guest.uuid().parse().unwrap();
    within(LIMIT, async {
        let mut config = atp_e2e::config();
        // All on the same connection: a stream that was left open would block it.
        config.pool.max_connections_per_host = 1;
        let manager = manager(&bed, config).await;
        for _ in 0..5 {
            let error = take(&manager, vm, 0, ScreenshotLimits { max_bytes: 700 }).await.unwrap_err();
            assert_eq!(error.kind(), "image-too-large", "{error:?}");
            let error = take(&manager, vm, 7, ScreenshotLimits::default()).await.unwrap_err();
            assert!(error.libvirt().is_some(), "{error:?}");
        }
        take(&manager, vm, 0, ScreenshotLimits::default()).await.unwrap();

        guest.destroy().unwrap();
        let error = take(&manager, vm, 0, ScreenshotLimits::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::VmNotRunning.as_str(), "{error:?}");
    });
}

#[test]
fn each_vm_has_a_screenshot_file_independent_of_its_name() {
    let bed = bed();
    let folder = std::env::temp_dir().join(format!("atp-e2e-shots-{}", std::process::id()));
    let odd = bed.host("h2").unwrap().define_guest("odd \u{e4} & .png").unwrap();
    odd.start().unwrap();
    bed.host("h3").unwrap().guest("vm2").unwrap().destroy().unwrap();
    let run = bed.run(&["screenshot", "h2/*", "h3/*", "-d", &folder.to_string_lossy()]);
    run.exits_with(1);
    assert_eq!(
        run.brief(),
        [
            "h2/odd \u{e4} & .png ok none",
            "h2/vm1 ok none",
            "h2/vm2 ok none",
            "h3/vm1 ok none",
            "h3/vm2 failed none vm-not-running",
        ]
    );
    for outcome in run.outcomes().iter().filter(|outcome| outcome.status == "ok") {
        let file = std::path::Path::new(outcome.data["file"].as_str().unwrap());
        assert_eq!(file.parent().and_then(|parent| parent.parent()), Some(folder.as_path()));
        let png = std::fs::read(file).unwrap();
        assert_eq!(outcome.data["bytes"], png.len());
        assert!(png.starts_with(b"\x89PNG"), "{file:?}");
    }
    odd.remove().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}
