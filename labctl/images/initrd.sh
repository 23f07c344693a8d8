#!/bin/busybox sh
# The first program of a guest: load what the root disk, the agent's port and the NICs need, then hand over to systemd.
# It takes a tenth of the time of a distribution's initramfs under emulation.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t sysfs sys /sys
while read -r module; do $b insmod "/lib/$module"; done </lib/order

i=0
while [ ! -b /dev/vda ] && [ $i -lt 250 ]; do $b usleep 20000; i=$((i + 1)); done
if ! $b mount -t ext4 -o rw,noatime /dev/vda /root; then
  echo "labctl: the first virtio disk holds no root file system; the machine is switched off"
  $b poweroff -f
fi

# udev would name the agent's port too, seconds later. Names arrive a moment after the port itself.
$b mkdir -p /dev/virtio-ports /dev/net
i=0
while [ $i -lt 25 ]; do
  waiting=
  for port in /sys/class/virtio-ports/*; do
    [ -e "$port" ] || continue
    name=
    [ -r "$port/name" ] && read -r name <"$port/name"
    if [ -n "$name" ]; then $b ln -sf "../${port##*/}" "/dev/virtio-ports/$name"; else waiting=1; fi
  done
  [ -n "$waiting" ] || break
  $b usleep 20000
  i=$((i + 1))
done

# Device nodes whose modules load when somebody opens them; systemd's own way to make them is switched off.
$b mknod /dev/net/tun c 10 200
$b mknod /dev/fuse c 10 229
$b mknod /dev/loop-control c 10 237
$b mknod /dev/ppp c 108 0
$b umount /sys
$b mount --move /dev /root/dev
exec $b switch_root /root /lib/systemd/systemd
