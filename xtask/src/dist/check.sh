#!/bin/sh
# Installs a package in a Debian without libvirt, uses it and removes it, and so the wheel of the Python package:
# check.sh PACKAGE WHEEL HOSTS CACHE. HOSTS are settings with one host that has two VMs. Runs in a mount namespace of its own.
set -eu
package=$1 wheel=$2 hosts=$3 cache=$4
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
base=$cache/$release-python

if [ ! -d "$base" ]; then
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v release="$release" '$2 == release && $3 == "main" { print $1; exit }')
	mkdir -p "$cache"
	rm -rf "$base.building"
	debootstrap --variant=minbase --include=python3-venv "$release" "$base.building" "$mirror" >"$cache/debootstrap.log" 2>&1 || {
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
cp "$wheel" /mnt/root/tmp
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

in_root python3 -m venv /tmp/venv
in_root /tmp/venv/bin/pip install --quiet --disable-pip-version-check --no-index "/tmp/$(basename "$wheel")"
in_root /tmp/venv/bin/python - <<'END'
import asyncio

from atp_libvirt import AsyncFleet, AtpError, Fleet

with Fleet("/tmp/hosts.toml") as fleet:
    outcomes = fleet.exec("*", ["hostname"], timeout=60).raise_for_failures()
    assert len(outcomes) == len(outcomes.grouped()) == 2, outcomes
    (target, _) = [vm.target for vm in fleet.vms().ok]
    with fleet.events(target, timeout=120) as events:
        assert next(events).item == "present"
        fleet.suspend(target, timeout=60).raise_for_failures()
        assert next(event.kind for event in events if event.item == "event") == "lifecycle"
    fleet.resume(target, timeout=60).raise_for_failures()
    assert fleet.stats(target)[0].stale is None
    with fleet.reserve("*", file="/tmp/reservations", count=2):
        assert len(fleet.reservations("/tmp/reservations")) == 2


async def listed():
    async with AsyncFleet("/tmp/hosts.toml") as fleet:
        return len((await fleet.vms()).raise_for_failures())


assert asyncio.run(listed()) == 2
try:
    Fleet(hosts={"demo": "test:///default"}).vms().raise_for_failures()
except AtpError as error:
    assert "the driver test is inside" in str(error), error
else:
    raise SystemExit("a driver inside libvirt's library is not refused")
END
echo "the wheel was installed and used"
