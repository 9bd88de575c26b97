#!/bin/sh
# Once per boot, before anything that serves: devices, growth, identity.
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs tmp /tmp
mkdir -p /dev/pts /dev/shm /run/lock
mount -t devpts devpts /dev/pts
while read -r module; do
    [ -d "/sys/module/$(basename "$module" .ko | tr - _)" ] || insmod "/lib/modules/$module"
done < /lib/modules/order
resize2fs "$(findfs LABEL=root)" > /run/resize.log 2>&1
ip link set lo up
ip link set eth0 up 2>/dev/null
/etc/init.cloud > /run/cloud.log 2>&1
echo "guest: $(hostname) up after $(cut -d' ' -f1 /proc/uptime) s" > /dev/console
