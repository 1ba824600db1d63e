# full_disk.sh STAGE FOLDER: runs a stage of the project here on a disk that has 16 KB left. For a mount namespace of its own (unshare):
# the disk is a tmpfs at FOLDER with a copy of data/, laid over data/, and gone with the namespace.
set -e
mount -t tmpfs -o size=64m tmpfs "$2"
cp -R data/. "$2"
cp -R "data/$1" "$2/.expected"
dd if=/dev/zero of="$2/.filler" bs=4096 2>/dev/null || true
truncate -s -16384 "$2/.filler"
mount --bind "$2" data
set +e
python -m "stages.$1"
code=$?
diff -r data/.expected "data/$1" && test ! -e "data/.$1.partial" && echo earlier outputs intact
exit $code
