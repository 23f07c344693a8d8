#!/bin/sh
# holder.sh TREE ROOT HEADLESS FOLDER... : furnish this mount namespace from TREE and stay until standard input ends.
#
# Runs as the first process of its own pid, mount and network namespaces: when it ends, everything in them ends. The tree
# is read-only; what is written goes to memory, or into one of the FOLDERs, which are seen inside at their own paths.
set -eu
PATH=$PATH:/usr/sbin:/sbin
tree=$1 root=$2 headless=$3
shift 3

mount --make-rprivate /
mount -t tmpfs -o mode=0755 labctl-tests "$root"
cp -a "$tree/bin" "$tree/lib" "$tree/lib64" "$tree/sbin" "$root"  # links into usr
for name in etc usr var; do
  mkdir "$root/$name"
  mount -o bind,ro "$tree/$name" "$root/$name"
done
mkdir "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/root" "$root/tmp"
chmod 1777 "$root/tmp"
mount --bind "$root/tmp" "$root/var/tmp"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"

# No device of this host but these: VirtualBox's own, where the host has it, stays outside.
for name in null zero full random urandom tty; do
  : >"$root/dev/$name"
  mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/pts" "$root/dev/shm"
chmod 1777 "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

mount -o bind,ro "$headless" "$root/usr/lib/virtualbox/VBoxHeadless"
for folder; do
  mkdir -p "$root$folder"
  mount --rbind "$folder" "$root$folder"
done
ip link set lo up

cd "$root"
pivot_root . .
umount -l .
cd /
echo ready
# Ignored, so that the kernel buries what daemons leave behind.
exec env --ignore-signal=CHLD cat
