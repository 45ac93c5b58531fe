#!/bin/sh
# Installs a Debian release with its libvirt and QEMU in a folder: release.sh SUITE FOLDER MIRROR. Runs in a mount
# namespace of its own.
set -eu
suite=$1 root=$2 mirror=$3

if ! command -v debootstrap >/dev/null; then
	echo "the package debootstrap is not installed; \`cargo xtask setup\` installs it" >&2
	exit 1
fi
if ! debootstrap --variant=minbase --merged-usr "$suite" "$root" "$mirror" >"$root.log" 2>&1; then
	# It writes each package that it installs; the reason is at the end.
	tail -n 15 "$root.log" >&2
	exit 1
fi
rm "$root.log"

# No service of it is started. Its programs are run by `daemon.sh` only.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

mount -t proc proc "$root/proc"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
chroot "$root" apt-get --quiet --quiet --yes --no-install-recommends install \
	libsasl2-modules libvirt-daemon libvirt-daemon-driver-qemu qemu-system-x86 qemu-utils
umount "$root/proc"

chroot "$root" apt-get clean
rm -rf "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/var/log/*
