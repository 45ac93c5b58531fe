//! The guest image: a Debian cloud kernel and an initramfs with busybox and the QEMU guest agent.
//!
//! All content comes from Debian packages that are downloaded and unpacked, not installed. The image is built once,
//! under a lock, and cached under a hash of the recipe.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cache;
use crate::command::run;
use crate::cpio::Archive;
use crate::error::{Error, Result};

/// Must be raised when the code below builds another image from the same inputs.
const RECIPE_VERSION: u32 = 2;

/// The package that depends on the newest kernel package.
const KERNEL_METAPACKAGE: &str = "linux-image-cloud-amd64";

/// The modules that the guest loads, in the order in which `/init` loads them. The last one is for `mount-data`.
const MODULES: [&str; 10] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_console",
    "button",
    "evdev",
    "virtio_input",
    "virtio_blk",
];

const INIT: &str = include_str!("../guest/init");
const SHUTDOWN: &str = include_str!("../guest/shutdown");
const POWER_BUTTON: &str = include_str!("../guest/power-button");
const MOUNT_DATA: &str = include_str!("../guest/mount-data");
const CHPASSWD: &str = include_str!("../guest/chpasswd");
const CHANNEL_PEER: &str = include_str!("../guest/channel-peer");
const OS_RELEASE: &str = include_str!("../guest/os-release");

/// For a download of some 30 MB over a slow line.
const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(300);
/// For unpacking and inspecting files.
const LOCAL_DEADLINE: Duration = Duration::from_secs(60);

/// A kernel and an initramfs on disk.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

impl Image {
    /// Finds the image in the cache, or builds it.
    pub(crate) fn ensure() -> Result<Self> {
        let key = key();
        if let Some(image) = Self::in_cache(Path::new(cache::SYSTEM_CACHE), &key) {
            return Ok(image);
        }
        let cache = cache::folder()?;
        let _lock = cache::lock(&cache.join("image.lock"))?;
        if let Some(image) = Self::in_cache(&cache, &key) {
            return Ok(image);
        }
        // This process holds the lock, so such a folder was left by a crashed build.
        let building = cache.join("image.building");
        match fs::remove_dir_all(&building) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("removing {}", building.display()))(error));
            }
            _ => cache::make_folder(&building, 0o755)?,
        }
        build(&building)?;
        let finished = cache.join(format!("image-{key}"));
        fs::rename(&building, &finished).map_err(Error::io(format!("making {}", finished.display())))?;
        Self::in_cache(&cache, &key).ok_or_else(|| Error::Image("the finished files cannot be read".into()))
    }

    /// The image in a cache folder. It is renamed into place when complete, so a folder of this name is complete.
    fn in_cache(cache: &Path, key: &str) -> Option<Self> {
        let folder = cache.join(format!("image-{key}"));
        let image = Self { kernel: folder.join("vmlinuz"), initramfs: folder.join("initramfs") };
        (fs::File::open(&image.kernel).is_ok() && fs::File::open(&image.initramfs).is_ok()).then_some(image)
    }
}

/// The hash of the recipe. Another recipe gives another image.
fn key() -> String {
    let mut hasher = DefaultHasher::new();
    (RECIPE_VERSION, KERNEL_METAPACKAGE, MODULES, INIT).hash(&mut hasher);
    (SHUTDOWN, POWER_BUTTON, MOUNT_DATA, CHPASSWD, CHANNEL_PEER, OS_RELEASE).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Creates `vmlinuz` and `initramfs` in the folder and removes everything else there.
fn build(folder: &Path) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Error::Image("the recipe is for x86_64 machines only".into()));
    }
    let work = folder.join("work");
    let files = work.join("files");
    cache::make_folder(&files, 0o755)?;
    for package in download(&work)? {
        run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&files), LOCAL_DEADLINE)?;
    }
    let boot = files.join("boot");
    let kernel = entries(&boot)?
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .ok_or_else(|| Error::Image(format!("no kernel in {}", boot.display())))?;
    for (name, content) in [("vmlinuz", read(&kernel)?), ("initramfs", initramfs(&files)?)] {
        let path = folder.join(name);
        fs::write(&path, content).map_err(Error::io(format!("writing {}", path.display())))?;
        cache::set_mode(&path, 0o644)?;
    }
    fs::remove_dir_all(&work).map_err(Error::io(format!("removing {}", work.display())))
}

/// Downloads the packages into a folder. Missing or outdated package lists are updated once, which needs root.
fn download(folder: &Path) -> Result<Vec<PathBuf>> {
    if let Err(error) = try_download(folder) {
        if cache::user_id() != 0 {
            return Err(Error::Image(format!("{error}\n`sudo apt-get update` may help")));
        }
        run(Command::new("apt-get").args(["update", "--quiet"]), DOWNLOAD_DEADLINE)?;
        try_download(folder)?;
    }
    Ok(entries(folder)?.into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "deb")).collect())
}

fn try_download(folder: &Path) -> Result<()> {
    let depends = run(Command::new("apt-cache").args(["depends", KERNEL_METAPACKAGE]), LOCAL_DEADLINE)?;
    let kernel = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
        .ok_or_else(|| Error::Image(format!("{KERNEL_METAPACKAGE} names no kernel package:\n{depends}")))?;
    // As root, apt would download as its own user, who cannot write to this folder.
    let mut apt = Command::new("apt-get");
    apt.args(["download", "--quiet", "-o", "APT::Sandbox::User=root"]);
    apt.args([kernel, "qemu-guest-agent", "busybox-static"]).current_dir(folder);
    run(&mut apt, DOWNLOAD_DEADLINE).map(drop)
}

/// Builds the guest's file system from the unpacked packages and the libraries of this machine.
fn initramfs(files: &Path) -> Result<Vec<u8>> {
    let busybox = files.join("bin/busybox");
    let agent = files.join("usr/sbin/qemu-ga");
    let libraries = libraries(&agent)?;

    let mut archive = Archive::default();
    let mut folders = BTreeSet::from(
        [
            "bin",
            "data",
            "dev",
            "etc/acpi/PWRF",
            "modules",
            "proc",
            "root",
            "run",
            "sbin",
            "sys",
            "tmp",
            "usr",
            "var",
        ]
        .map(PathBuf::from),
    );
    folders
        .extend(libraries.iter().filter_map(|path| Some(path.strip_prefix("/").ok()?.parent()?.to_owned())));
    let with_parents: BTreeSet<&Path> =
        folders.iter().flat_map(|folder| folder.ancestors()).filter(|path| *path != Path::new("")).collect();
    for folder in with_parents {
        archive.directory(&folder.to_string_lossy());
    }

    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("bin/busybox", 0o755, &read(&busybox)?);
    // The guest's own programs, and "busybox" itself, are not applets.
    let own = ["busybox", "shutdown", "poweroff", "reboot", "halt"];
    let applets = run(Command::new(&busybox).arg("--list"), LOCAL_DEADLINE)?;
    for applet in applets.lines().filter(|applet| !own.contains(applet)) {
        archive.symlink(&format!("bin/{applet}"), "busybox");
    }
    archive.file("sbin/shutdown", 0o755, SHUTDOWN.as_bytes());
    for name in ["poweroff", "reboot", "halt"] {
        archive.symlink(&format!("sbin/{name}"), "shutdown");
    }
    archive.file("sbin/mount-data", 0o755, MOUNT_DATA.as_bytes());
    // The agent expects it at this path.
    archive.symlink("sbin/hwclock", "../bin/busybox");
    archive.file("sbin/chpasswd", 0o755, CHPASSWD.as_bytes());
    archive.file("sbin/channel-peer", 0o755, CHANNEL_PEER.as_bytes());
    archive.file("etc/acpi/PWRF/00000080", 0o755, POWER_BUTTON.as_bytes());
    archive.file("etc/os-release", 0o644, OS_RELEASE.as_bytes());
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file("etc/shadow", 0o600, b"root:*:19000:0:99999:7:::\n");
    archive.file("etc/group", 0o644, b"root:x:0:\n");
    archive.file("sbin/qemu-ga", 0o755, &read(&agent)?);
    archive.symlink("usr/bin", "../bin");
    archive.symlink("usr/sbin", "../sbin");
    archive.symlink("var/run", "../run");
    for library in &libraries {
        archive.file(library.to_string_lossy().trim_start_matches('/'), 0o755, &read(library)?);
    }
    for module in MODULES {
        let file = format!("{module}.ko");
        // Module names may have either separator, independently of the file name.
        let path = find(&files.join("lib/modules"), &[file.as_str(), file.replace('_', "-").as_str()])?
            .ok_or_else(|| Error::Image(format!("the kernel package has no module {module}")))?;
        archive.file(&format!("modules/{file}"), 0o644, &read(&path)?);
    }
    Ok(archive.finish())
}

/// The shared libraries that a program needs, including the loader, by their paths on this machine.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = run(Command::new("ldd").arg(program), LOCAL_DEADLINE)?;
    if let Some(line) = output.lines().find(|line| line.contains("not found")) {
        return Err(Error::Image(format!("a library of the guest agent is not installed: {}", line.trim())));
    }
    // "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" and "\t/lib64/ld-linux-x86-64.so.2 (0x…)".
    let paths = output.lines().filter_map(|line| {
        let path = line.rsplit_once("=> ").map_or(line, |(_, path)| path).trim().split(' ').next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    Ok(paths.collect())
}

/// Finds the first file below a folder that has one of these names.
fn find(folder: &Path, names: &[&str]) -> Result<Option<PathBuf>> {
    for path in entries(folder)? {
        if path.is_dir() {
            if let Some(found) = find(&path, names)? {
                return Ok(Some(found));
            }
        } else if path.file_name().is_some_and(|name| names.iter().any(|wanted| name == *wanted)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("reading {}", folder.display());
    let entries = fs::read_dir(folder).map_err(Error::io(what()))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(Error::io(what()))).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::io(format!("reading {}", path.display())))
}
