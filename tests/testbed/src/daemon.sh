#!/bin/sh
# Starts the libvirt daemon of one host in root mode: daemon.sh FOLDER HOSTNAME. Runs inside the host's network
# namespace and in namespaces of its own for mounts, where the host's folder stands in for the machine's libvirt
# files, and for the host name.
set -eu
host=$1

echo "$2" >/proc/sys/kernel/hostname

mkdir -p /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt
mount --bind "$host/etc" /etc/libvirt
mount --bind "$host/lib" /var/lib/libvirt
mount --bind "$host/cache" /var/cache/libvirt
mount --bind "$host/log" /var/log/libvirt

# Debian's libvirtd wants this user to exist, even when qemu.conf names another one.
if ! getent passwd libvirt-qemu >/dev/null; then
	{ cat /etc/passwd; echo "libvirt-qemu:x:64055:64055::/nonexistent:/bin/false"; } >"$host/passwd"
	{ cat /etc/group; echo "libvirt-qemu:x:64055:"; } >"$host/group"
	mount --bind "$host/passwd" /etc/passwd
	mount --bind "$host/group" /etc/group
fi

# A /run of its own, in which the host's folder, which is below /run, is still found under its usual path.
inside=$host/run/${host#/run/}
mkdir -p "$inside"
# /var/lock: the daemon locks each channel that is opened through it.
mkdir -p "$host/run/lock"
mount --bind "$host" "$inside"
# A disk that is soon full, see `Host::small_folder`.
mkdir -p "$inside/small"
mount -t tmpfs -o size=2m small "$inside/small"
mount --rbind "$host/run" /run

exec libvirtd --listen --config /etc/libvirt/libvirtd.conf
