#!/bin/sh
# Makes the virtqemud and the virtproxyd of a release's libvirt, which Debian builds and does not ship:
# modular.sh RELEASE WORK. RELEASE is a folder that release.sh made, WORK the folder in which they are made; in the end it
# has both programs and nothing else. Runs in a mount namespace of its own.
#
# Only what the two programs have beside libvirt's library is compiled, some ten files: they are linked with the library
# of the release, which is of the same source.
set -eu
release=$1 work=$2
root=$work/root

mkdir "$work"
cp -a "$release" "$root"
mount -t proc proc "$root/proc"
sed 's/^deb /deb-src /' "$root/etc/apt/sources.list" >"$root/etc/apt/sources.list.d/source.list"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
# A mirror may keep a state of the release that is weeks old; apt would refuse it as a replay.
chroot "$root" apt-get --quiet --quiet -o Acquire::Check-Valid-Until=false update
chroot "$root" apt-get --quiet --quiet --yes --no-install-recommends install \
	gcc gettext libc6-dev libglib2.0-dev libgnutls28-dev libjson-c-dev libsasl2-dev libtirpc-dev libxml2-dev libxml2-utils \
	meson ninja-build perl pkg-config rpcsvc-proto xsltproc xz-utils
chroot "$root" sh -eu -c '
	cd /tmp
	apt-get --quiet --quiet -o APT::Sandbox::User=root source --download-only --tar-only libvirt
	mkdir source
	tar -C source --strip-components=1 -xf libvirt_*.orig.tar.xz
	cd source
	meson setup build --prefix=/usr --libdir=/lib --localstatedir=/var --sysconfdir=/etc -Dsystem=true \
		-Dauto_features=disabled -Ddriver_remote=enabled -Ddriver_libvirtd=enabled -Ddriver_qemu=enabled \
		-Djson_c=enabled -Dpolkit=enabled -Dsasl=enabled -Ddocs=disabled -Dtests=disabled -Dnls=disabled
	cd build
	ninja -t targets all | sed -n "s,^\(src/\(virtqemud\|virtproxyd\|admin/libvirt_admin_driver.a\).p/[^:]*.o\):.*,\1,p" >objects
	ninja $(cat objects)
	libraries=$(dirname "$(ls /usr/lib/*/libvirt.so.0)")
	for program in virtqemud virtproxyd; do
		gcc -s -o "/tmp/$program" src/$program.p/*.o src/admin/libvirt_admin_driver.a.p/*.o \
			"$libraries/libvirt.so.0" "$libraries/libvirt-lxc.so.0" "$libraries/libvirt-qemu.so.0" \
			"$libraries/libvirt-admin.so.0" -lglib-2.0 -lgobject-2.0 -lgio-2.0 -lgnutls -lsasl2 -ltirpc -lxml2
	done
' >"$work/log" 2>&1 || {
	tail -n 15 "$work/log" >&2
	exit 1
}
umount "$root/proc"
mv "$root/tmp/virtqemud" "$root/tmp/virtproxyd" "$work"
rm -rf "$root" "$work/log"
