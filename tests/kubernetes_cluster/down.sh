#!/bin/bash
# down.sh - end what up.sh started, and only that: pods first (so no container outlives its kubelet), then the
#           daemons by their recorded pid, then the shims/pods left over, mounts, interfaces and the kubepods cgroup.
# Needs: the same CLUSTER_HOME (and CLUSTER_IFC) as up.sh. Keeps binaries and imported images; --purge removes images too.
# Measured (2 cores, 2026-11-24), 12-14 s; afterwards no process, interface, mount, network namespace or kubepods cgroup was left.
set -uo pipefail
export CLUSTER_HOME=${CLUSTER_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/spaceport/kubernetes}; IFC=${CLUSTER_IFC:-spacek8s} POD_NET=${CLUSTER_POD_NET:-10.88.0.0/24}
R=$CLUSTER_HOME/run; S=$R/containerd.sock; t0=$SECONDS
alive() { [ -e "$R/pids/$1" ] && kill -0 "$(cat "$R/pids/$1")" 2>/dev/null; }
stop() { alive "$1" || return 0; local p; p=$(cat "$R/pids/$1"); kill "$p" 2>/dev/null
  for _ in $(seq 50); do kill -0 "$p" 2>/dev/null || return 0; sleep 0.1; done; kill -9 "$p" 2>/dev/null; }
stop kubelet; stop scheduler; stop kcm
if alive containerd; then                      # containers of this containerd only
  c() { timeout 20 ctr -a "$S" -n k8s.io "$@" 2>/dev/null; }
  NS=$(for t in $(c containers ls -q); do c containers info "$t" | grep -o '/netns/cni-[0-9a-f-]*'; done | sed 's#/netns/##' | sort -u)
  for t in $(c tasks ls -q); do c tasks kill -s SIGKILL "$t"; done
  for t in $(c tasks ls -q); do c tasks rm -f "$t" >/dev/null; done
  for t in $(c containers ls -q); do c containers rm "$t" >/dev/null; done
  if [ "${1:-}" = --purge ]; then for t in $(c images ls -q); do c images rm "$t" >/dev/null; done; fi
fi
# shims carry its socket in their command line
for p in $(ps -eo pid=,args= | awk -v s="-address $S" 'index($0, "containerd-shim") && index($0, s) {print $1}'); do kill "$p" 2>/dev/null; done
stop containerd; stop apiserver; stop etcd
grep -o " $CLUSTER_HOME/[^ ]*" /proc/mounts | sort -r | while read -r m; do umount -l "$(printf '%b' "$m")" 2>/dev/null; done
for n in ${NS:-}; do ip netns del "$n" 2>/dev/null; done      # its pod network namespaces
ip link del "${IFC}br" 2>/dev/null; ip link del "$IFC" 2>/dev/null; ip route del blackhole "$POD_NET" 2>/dev/null
for g in /sys/fs/cgroup/*/kubepods; do [ -d "$g" ] && find "$g" -depth -type d -exec rmdir {} + 2>/dev/null; done
[ -e "$R/sysctl.before" ] && while read -r k v; do echo "$v" >"/proc/sys/$k" 2>/dev/null; done <"$R/sysctl.before"
rm -f "$R"/pids/* "$R/sysctl.before"; [ "${1:-}" = --purge ] && rm -rf "$CLUSTER_HOME/containerd-root" "$CLUSTER_HOME/images"
echo "down after $((SECONDS - t0)) s"
