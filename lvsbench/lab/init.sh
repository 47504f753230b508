#!/bin/sh
# Process 1 of a lab node. The stub in the image has unpacked the node's archive in /mnt and started this file from there.
#
# The node must look like a plain Debian host that lvsbench has never seen: no IPVS, no VIP, every sysctl as the kernel
# made it. So this file loads no module but overlay, and writes no sysctl. What a mode needs, the drivers do over SSH.
# A router alone is more than that from the start: the network is there before anybody looks at the cluster.
# A failure here ends process 1: the kernel panics, its process ends, and the console says at which command.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# All nodes share one read-only image, each writes into a tmpfs of its own on top of it.
mount -t proc proc /proc
modprobe overlay
mount -t tmpfs -o mode=755 tmpfs /media
mkdir /media/upper /media/work /media/root
mount -t overlay -o lowerdir=/,upperdir=/media/upper,workdir=/media/work overlay /media/root
cp -a /mnt/files/. /media/root/

# pivot_root and not chroot: it moves the kernel's own threads too, so modules that the kernel asks for by itself
# (a scheduler of IPVS, for one) are looked up in the same root that modprobe on the node sees.
cd /media/root
pivot_root . mnt
cd /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/sshd /run/lock
# Lazy: this very file is still being read from the old root.
umount -l /mnt

hostname -F /etc/hostname
# Every command over SSH starts root's shell: bash takes 32 ms on a node, sh 15 (measured). "lab shell" asks for bash.
sed -i '/^root:/s|/bin/bash$|/bin/sh|' /etc/passwd
ip -batch /etc/lvsbench/links
if [ -e /etc/lvsbench/router ]; then
    . /etc/lvsbench/router
fi
# -r: it forks for a connection and does not start itself anew, which takes 70 ms on a node (measured).
/usr/sbin/sshd -r
if [ -e /etc/lvsbench/nginx.conf ]; then
    nginx -c /etc/lvsbench/nginx.conf
fi
echo "lvsbench: node is up"

# Process 1 must stay. While dash waits for sleep it also collects the orphans that every process 1 inherits.
while :; do
    sleep 86400
done
