//! The Debian packages for building and testing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use crate::Result;

/// For building, the testbed and the demo. `libvirt-daemon`, not `libvirt-daemon-system`: the testbed needs only the programs and
/// drivers, and the latter would start a daemon of the machine and install systemd units.
const PACKAGES: [&str; 10] = [
    "gcc",
    "iproute2",
    "iptables",
    "libc6-dev",
    "libsasl2-modules",
    "libvirt-clients",
    "libvirt-daemon",
    "libvirt-dev",
    "pkg-config",
    "qemu-system-x86",
];

/// What only the tests need. `chromium` and its driver show the page of `atp serve`, `prometheus` scrapes the service, and
/// `postgresql-15` keeps its runs. `debootstrap` installs other Debian releases for the testbed, and `qemu-utils` makes disk images
/// that keep snapshots. The tests run `openssh-server`, `krb5-kdc` and `postgresql-15` themselves; there are no packages of the
/// programs alone. `libclang-dev` and `libkrb5-dev` are for the feature `gssapi`.
pub(crate) const OF_TESTS: &[&str] = &[
    "chromium",
    "chromium-driver",
    "debootstrap",
    "krb5-admin-server",
    "krb5-kdc",
    "krb5-user",
    "libclang-dev",
    "libkrb5-dev",
    "libsasl2-modules-gssapi-mit",
    "libvirt-l10n",
    "openssh-client",
    "openssh-server",
    "postgresql-15",
    "prometheus",
    "python3-venv",
    "qemu-utils",
    "sasl2-bin",
];

/// Installs missing packages if root; else returns an error that lists them.
pub(crate) fn run() -> Result<()> {
    run_with(&[])
}

/// As [`run`], with further packages.
pub(crate) fn run_with(further: &[&'static str]) -> Result<()> {
    let wanted: Vec<_> = PACKAGES.iter().chain(further).copied().collect();
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        return Err(format!(
            "these Debian packages are missing: {list}\n\n\
             hint: as root: apt-get update && apt-get install --no-install-recommends {list}"
        ));
    }
    eprintln!("installing the Debian packages {list} …");
    // An unreachable source may not matter; if it does, the installation fails with the reason.
    if let Err(message) = apt_get(&["update"]) {
        eprintln!("warning: {message}");
    }
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&missing);
    apt_get(&arguments)
}

fn missing<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output()
        .map_err(|error| {
            format!(
                "cannot run dpkg-query: {error}\n\n\
                 hint: this project is built and tested on Debian 12, with the packages {}",
                wanted.join(" ")
            )
        })?;
    // The exit status only says that one of the packages is unknown.
    let known = String::from_utf8_lossy(&output.stdout);
    let installed: Vec<&str> = known.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    Ok(wanted.iter().copied().filter(|package| !installed.contains(package)).collect())
}

/// Runs apt-get, and shows its output only if it fails: it has hundreds of lines.
fn apt_get(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(["--quiet", "--quiet", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run apt-get: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("`apt-get {}` failed ({}):\n{stdout}{stderr}", arguments.join(" "), output.status))
}
