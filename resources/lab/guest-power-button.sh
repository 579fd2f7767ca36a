#!/bin/busybox sh
# What acpid runs when the power button is pressed (virsh shutdown --mode acpi).
echo "power button" >/dev/console
sync
umount /data 2>/dev/null
poweroff -f
