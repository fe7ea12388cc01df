# Starts the kernel of one guest. Runs on the machine as the first process of a private process and mount
# namespace: what is mounted here is seen by this guest alone and is gone with it, also after SIGKILL.
#   $1 the release's tree ('' = the machine's own root)   $2 the scenario's folder   $3 memory in MiB   then the kernel's arguments
set -eu
tree=$1 folder=$2 memory=$3
shift 3
mount --bind "$folder" "$tree/opt"
mount --bind "$folder/bin" "$tree/usr/local/bin"
# The guest's memory is a file; in a memory file system, and one that allows execution.
mount -t tmpfs -o "size=$((memory + 64))m" tmpfs "$tree/opt/memory"
mount -t proc proc "$tree/proc"
[ -z "$tree" ] || mount --bind /dev "$tree/dev"
TMPDIR=/opt/memory
export TMPDIR
exec chroot "${tree:-/}" /usr/bin/env LD_PRELOAD=/opt/ptrace.so /usr/bin/linux.uml "$@"
