#!/bin/sh
# Installs a package in a Debian without libvirt, uses it and removes it: check.sh PACKAGE HOSTS CACHE. HOSTS are settings
# with one host that has two VMs. Runs in a mount namespace of its own.
set -eu
package=$1 hosts=$2 cache=$3
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
base=$cache/$release

if [ ! -d "$base" ]; then
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v release="$release" '$2 == release && $3 == "main" { print $1; exit }')
	mkdir -p "$cache"
	rm -rf "$base.building"
	debootstrap --variant=minbase "$release" "$base.building" "$mirror" >"$cache/debootstrap.log" 2>&1 || {
		tail -n 15 "$cache/debootstrap.log" >&2
		exit 1
	}
	rm -rf "$base.building"/var/cache/apt/archives/*.deb
	mv "$base.building" "$base"
fi

# What is written goes to memory, and ends with the namespace.
mount -t tmpfs tmpfs /mnt
mkdir /mnt/root /mnt/upper /mnt/work
mount -t overlay overlay -o "lowerdir=$base,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
cp "$package" /mnt/root/tmp/atp.deb
cp "$hosts" /mnt/root/tmp/hosts.toml

fail() {
	echo "error: $*" >&2
	exit 1
}
in_root() {
	# `HOME` of this machine does not exist there.
	env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot /mnt/root "$@"
}

in_root dpkg --install /tmp/atp.deb
in_root ldconfig -p | grep libvirt && fail "libvirt is in the folder, where it should not be needed"
in_root atp --version
in_root atp config check --config /usr/share/doc/atp/examples/atp.toml
in_root atp --config /tmp/hosts.toml vm list
if in_root atp --host demo=test:///default vm list 2>/mnt/refused; then
	fail "a driver inside libvirt's library is not refused"
fi
grep -q 'the driver test is inside' /mnt/refused && grep -q 'feature `library`' /mnt/refused || fail "$(cat /mnt/refused)"
in_root atp --config /tmp/hosts.toml -o jsonl exec '*' -- hostname >/mnt/outcomes
[ "$(grep -c '"status":"ok"' /mnt/outcomes)" = 2 ] || fail "exec: $(cat /mnt/outcomes)"
for page in atp atp-exec atp-vm-list; do
	[ -s "/mnt/root/usr/share/man/man1/$page.1" ] || [ -s "/mnt/root/usr/share/man/man1/$page.1.gz" ] ||
		fail "there is no manual page $page"
done
in_root bash -n /usr/share/bash-completion/completions/atp
in_root dpkg --purge atp
left=$(find /mnt/root/usr /mnt/root/etc /mnt/root/var/lib -name 'atp*' -o -name '_atp')
[ -z "$left" ] || fail "the package leaves $left"
echo "the package was installed, used and removed"
