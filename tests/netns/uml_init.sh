#!/bin/sh
# First process of a User-Mode Linux whose root is this machine's, read-only: what is written goes to memory and is lost.
# The kernel's command line says what to run: python= and test= (a file), in the folder home=.
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
word() { sed -n "s/.* $1=\\([^ ]*\\).*/\\1/p" /proc/cmdline; }
HERE=$(word home) PYTHON=$(word python) TEST=$(word test)
umount /proc
insmod "/usr/lib/uml/modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko"
mount -t tmpfs tmpfs /mnt
mkdir /mnt/up /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work /mnt/root
cd /mnt/root
mkdir -p old
pivot_root . old
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/pts /run/netns
mount -t devpts devpts /dev/pts
rm -rf /lib/modules && mkdir -p /usr/lib/modules && ln -s /usr/lib/uml/modules/"$(uname -r)" /usr/lib/modules/"$(uname -r)"
modprobe -a ppp_generic l2tp_ppp esp4
[ -e /dev/ppp ] || mknod /dev/ppp c 108 0
ip link set lo up
cd "$HERE"
export PYTHONPATH=$HERE PYTHONDONTWRITEBYTECODE=1
set +e
"$PYTHON" -m pytest --color=no -p no:cacheprovider -p no:xdist -x -v --timeout 100 "$TEST" 2>&1
echo "ended with $?"
"$PYTHON" -c "import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)"  # off, and not on again
