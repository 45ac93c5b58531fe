#!/bin/sh
# Starts the libvirt daemon of one host in root mode: daemon.sh FOLDER HOSTNAME [RELEASE [MODULAR]]. Runs inside the
# host's network namespace and in namespaces of its own for mounts, where the host's folder stands in for the machine's
# libvirt files, and for the host name. RELEASE is a folder with another Debian release, whose daemon is run instead of
# this machine's. MODULAR is a folder with its virtqemud and virtproxyd, which are run instead of its libvirtd.
set -eu
host=$1
root=${3:-}
modular=${4:-}

echo "$2" >/proc/sys/kernel/hostname

for folder in etc/libvirt var/lib/libvirt var/cache/libvirt var/log/libvirt; do
	mkdir -p "$root/$folder"
done
mount --bind "$host/etc" "$root/etc/libvirt"
mount --bind "$host/lib" "$root/var/lib/libvirt"
mount --bind "$host/cache" "$root/var/cache/libvirt"
mount --bind "$host/log" "$root/var/log/libvirt"

# Debian's libvirtd wants this user to exist, even when qemu.conf names another one.
if ! grep -q '^libvirt-qemu:' "$root/etc/passwd"; then
	{ cat "$root/etc/passwd"; echo "libvirt-qemu:x:64055:64055::/nonexistent:/bin/false"; } >"$host/passwd"
	{ cat "$root/etc/group"; echo "libvirt-qemu:x:64055:"; } >"$host/group"
	mount --bind "$host/passwd" "$root/etc/passwd"
	mount --bind "$host/group" "$root/etc/group"
fi

# A /run of its own, in which the host's folder, which is below /run, is still found under its usual path.
inside=$host/run/${host#/run/}
mkdir -p "$inside"
# /var/lock: the daemon locks each channel that is opened through it. A daemon that was killed leaves its locks, and the
# next one removes them only if no process has that id any more: one whose parent does not wait for it still has it.
mkdir -p "$host/run/lock"
rm -f "$host/run/lock/LCK.."*
mount --bind "$host" "$inside"
# A disk that is soon full, see `Host::small_folder`.
mkdir -p "$inside/small"
mount -t tmpfs -o size=2m,nr_inodes=64 small "$inside/small"
mount --rbind "$host/run" "$root/run"

if [ -z "$root" ]; then
	exec libvirtd --listen --config /etc/libvirt/libvirtd.conf
fi
for folder in dev proc sys; do
	mount --rbind "/$folder" "$root/$folder"
done
# The guests' kernel is in the cache.
cache=${root%/*}
mkdir -p "$root$cache"
mount --bind "$cache" "$root$cache"
if [ -z "$modular" ]; then
	exec chroot "$root" libvirtd --listen --config /etc/libvirt/libvirtd.conf
fi
chroot "$root" "$modular/virtqemud" --config /etc/libvirt/virtqemud.conf &
# It has no option to listen: its configuration decides.
exec chroot "$root" "$modular/virtproxyd" --config /etc/libvirt/virtproxyd.conf
