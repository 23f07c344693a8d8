# The last step on a new root file system; run by a shell outside it, with its path as $1.
set -e
cd "$1"
# What must differ between machines, and what belongs to the host that built the image.
rm -f etc/ssh/ssh_host_*_key* etc/hostname etc/resolv.conf var/lib/dbus/machine-id var/lib/systemd/random-seed
: >etc/machine-id
echo localhost >etc/hostname
: >etc/resolv.conf
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >etc/hosts
sed -E -i 's#://[^/@ ]+@#://#' etc/apt/sources.list
rm -f etc/apt/apt.conf.d/99mmdebstrap
rm -rf usr/share/doc/* usr/share/man/* usr/share/locale/* usr/share/info/* usr/lib/udev/hwdb.d
rm -f boot/initrd.img-* initrd.img initrd.img.old vmlinuz vmlinuz.old
# labctl's own console replaces these.
rm -f etc/systemd/system/getty.target.wants/*
