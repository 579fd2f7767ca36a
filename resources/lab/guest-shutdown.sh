#!/bin/busybox sh
# What the guest agent runs for guest-shutdown: shutdown -h -P|-H|-r +0 "message"
echo "shutdown $*" >/dev/console
sync
umount /data 2>/dev/null
case " $* " in
  *" -r "*) reboot -f ;;
  *) poweroff -f ;;
esac
