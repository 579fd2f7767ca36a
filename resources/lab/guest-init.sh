#!/bin/busybox sh
# PID 1 of a lab guest: drivers, disk, address, guest agent, then a line "READY" and a shell on the console.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
ln -sf /proc/self/mounts /etc/mtab

while read -r module; do insmod "$module"; done </etc/modules-in-order

for word in $(cat /proc/cmdline); do
  case $word in
    name=*) hostname "${word#name=}" ;;
    address=*) ADDRESS=${word#address=} ;;
    dirty=*) DIRTY=${word#dirty=} ;;
    deaf) DEAF=1 ;;
    trial) TRIAL=1 ;;
  esac
done

[ -b /dev/vda ] && mount -t ext4 /dev/vda /data 2>/dev/null
ip link set lo up
if [ -n "$ADDRESS" ] && [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  ip address add "$ADDRESS" dev eth0
fi
# deaf: the power button is pressed in vain, as in a guest without such a service.
[ -z "$DEAF" ] && acpid -l /run/acpid.log

# There is no udev to name the agent's port.
PORT=/dev/virtio-ports/org.qemu.guest_agent.0
for _ in 1 2 3 4 5 6 7 8 9 10; do
  for device in /sys/class/virtio-ports/*; do
    if [ -f "$device/name" ] && [ "$(cat "$device/name")" = org.qemu.guest_agent.0 ]; then
      mkdir -p /dev/virtio-ports
      ln -sf "/dev/${device##*/}" $PORT
    fi
  done
  [ -e $PORT ] && break
  usleep 200000
done
if [ -e $PORT ] && [ -x /usr/sbin/qemu-ga ]; then
  mkdir -p /var/run /usr/var/run
  qemu-ga -d -m virtio-serial -p $PORT -f /run/qga.pid -t /run
fi

# dirty=N: rewrite N MiB of memory over and over, so that a live migration has work.
if [ -n "$DIRTY" ]; then
  mount -t tmpfs -o "size=${DIRTY}m" dirt /tmp
  while :; do dd if=/dev/urandom of=/tmp/dirt bs=1M count=$((DIRTY - 1)) conv=notrunc 2>/dev/null; done &
fi

echo "READY $(cut -d' ' -f1 /proc/uptime) $(grep MemAvail /proc/meminfo)" >/dev/console
[ -n "$TRIAL" ] && poweroff -f
while :; do
  # Each line typed on the console is run; good enough for tests, and needs no tty.
  read -r line </dev/ttyS0 2>/dev/null
  [ -n "$line" ] && sh -c "$line" >/dev/ttyS0 2>&1
  sleep 1
done
