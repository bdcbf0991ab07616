#!/bin/busybox sh
# The guest of the tests. Kernel parameters:
#   iofuzz.shell           besides, a shell without a prompt on ttyS1, as ssh has it
#   iofuzz.password=WORD   a login prompt for `root` and `visitor`, with this password, instead of a shell
busybox=/bin/busybox
$busybox mkdir -p /proc /sys /dev /tmp /root
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs devtmpfs /dev
$busybox --install -s /bin
export PATH=/bin HOME=/root
for word in $(cat /proc/cmdline); do
    case $word in
    iofuzz.password=*) password=${word#*=} ;;
    iofuzz.shell) shell=yes ;;
    esac
done
if [ -n "$shell" ]; then
    stty raw -echo -F /dev/ttyS1
    while true; do setsid sh < /dev/ttyS1 > /dev/ttyS1 2>&1; done &
fi
if [ -n "$password" ]; then
    hash=$(mkpasswd -m md5 "$password")
    printf 'root:%s:0:0::/root:/bin/sh\nvisitor:%s:1000:1000::/tmp:/bin/sh\n' "$hash" "$hash" > /etc/passwd
    printf 'root:x:0:\nvisitor:x:1000:\n' > /etc/group
    hostname guest
    while true; do setsid getty -L 115200 ttyS0 vt100; done
fi
while true; do setsid cttyhack sh; done
