#!/bin/bash
# up.sh - one-node Kubernetes on this machine: etcd, API server, controller-manager, scheduler, containerd,
#         a real kubelet and bridge CNI, until the node is Ready. Prints the kubeconfig path on stdout (last line).
# Needs: build.sh to have run (same CLUSTER_HOME), root, Linux with cgroup v1 or hybrid, overlayfs, veth, bridge.
# Listens: etcd on 127.0.0.1; API server, kubelet on $NODE_IP, an address of an interface of its own
#          $IFC. Pods sit on bridge ${IFC}br ($POD_NET), reach $NODE_IP, other pods and nothing else: no
#          forwarding, no NAT, a blackhole route keeps pod/node addresses off every other interface.
#          So a Prefect server that pods must reach listens on $NODE_IP (not on 127.0.0.1).
# State:   all under $CLUSTER_HOME (run/ is made anew at each start); only what down.sh takes away lies outside
#          (interfaces, cgroup /kubepods, /var/lib/cni).
# Traps that this script settles (each found the hard way on this kind of machine):
#   no CAP_SYS_RESOURCE -> containerd restrict_oom_score_adj=true, else every container fails to start;
#   kubelet refuses a loopback node IP -> own interface (dummy, or an empty bridge where the kernel has no dummy); registry-less -> own static pause image, imported;
#   small CI disks -> no eviction for the node's disk ("0%": the kubelet ignores the signal), image GC off, else the kubelet deletes imported images and refuses
#     every pod; a percentage counts blocks that a file system reserves for root, so 1% of a big disk with a small quota was many gigabytes (2026-11-27).
# Measured (2 cores, 2026-11-24), at load 9-12: containerd 0.6 s, API server 4.7-7.8 s, node Ready 13.6-17.4 s. RSS: apiserver 345 MB, kubelet 115, kcm 111,
#   etcd 68, containerd 56, scheduler 44.
# Use: CLUSTER_HOME=${XDG_CACHE_HOME:-$HOME/.cache}/spaceport/kubernetes bash up.sh ; export KUBECONFIG=$CLUSTER_HOME/admin.kubeconfig
set -euo pipefail
export CLUSTER_HOME=${CLUSTER_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/spaceport/kubernetes}
NODE_IP=${CLUSTER_NODE_IP:-10.89.0.1} POD_NET=${CLUSTER_POD_NET:-10.88.0.0/24} IFC=${CLUSTER_IFC:-spacek8s} P=${CLUSTER_PORT:-16443}
EP=$((P + 1)) KP=$((P + 2)) NODE=${CLUSTER_NODE:-spaceport-node} HERE=$(cd "$(dirname "$0")" && pwd)
R=$CLUSTER_HOME/run BIN=$CLUSTER_HOME/bin KUBECONFIG=$CLUSTER_HOME/admin.kubeconfig; export KUBECONFIG PATH=$BIN:$PATH
t0=$(date +%s%N); say() { printf '[up %d.%01d s] %s\n' $((($(date +%s%N)-t0)/1000000000)) $((($(date +%s%N)-t0)/100000000%10)) "$*" >&2; }
for b in kube-apiserver kube-controller-manager kube-scheduler kubelet pause; do [ -x "$BIN/$b" ] || { echo "no $BIN/$b: run build.sh first" >&2; exit 1; }; done
for f in "$R"/pids/*; do [ -e "$f" ] && kill -0 "$(cat "$f")" 2>/dev/null && { echo "already up ($f): run down.sh first" >&2; exit 1; }; done
rm -rf "$R"; mkdir -p "$R"/{pids,log,cni,certs,kubelet,etcd,containerd} "$CLUSTER_HOME/images"; cd "$R"
bg() { local n=$1; shift; setsid "$@" </dev/null >"$R/log/$n.log" 2>&1 & echo $! >"$R/pids/$n"; }
die() { echo "up.sh: $1" >&2; tail -5 "$R/log/$2.log" >&2 || true; exit 1; }

# --- network: an interface of its own, and no way out
# some kernels of this kind have no dummy driver ("Unknown device type"): an empty bridge serves as well
ip link show "$IFC" >/dev/null 2>&1 || ip link add "$IFC" type dummy 2>/dev/null || ip link add "$IFC" type bridge
ip addr replace "$NODE_IP/32" dev "$IFC"; ip link set "$IFC" up
ip route replace blackhole "$POD_NET" metric 9999 2>/dev/null || true
cat >cni/10-spaceport.conflist <<E
{"cniVersion":"0.4.0","name":"${IFC}","plugins":[
 {"type":"bridge","bridge":"${IFC}br","isGateway":true,"ipMasq":false,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":"$R/cni-ipam","ranges":[[{"subnet":"$POD_NET"}]],"routes":[{"dst":"$NODE_IP/32"}]}},
 {"type":"loopback"}]}
E
# --- identities
openssl genrsa -out sa.key 2048 2>/dev/null; openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
AT=$(openssl rand -hex 16) KT=$(openssl rand -hex 16)
# the daemons keep the usual umask: with 077 containerd unpacks images that nobody but root can read
(umask 077; printf '%s,admin,admin,"system:masters"\n%s,system:node:%s,kubelet,"system:nodes"\n' "$AT" "$KT" "$NODE" >tokens.csv)
kc() { rm -f "$1"; (umask 077; cat >"$1") <<E
apiVersion: v1
kind: Config
clusters: [{name: spaceport, cluster: {server: "https://$NODE_IP:$P", certificate-authority-data: "$(base64 -w0 certs/apiserver.crt)"}}]
users: [{name: spaceport, user: {token: "$2"}}]
contexts: [{name: spaceport, context: {cluster: spaceport, user: spaceport}}]
current-context: spaceport
E
}
# --- control plane
bg etcd /usr/bin/etcd --data-dir "$R/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:$EP --advertise-client-urls http://127.0.0.1:$EP \
  --listen-peer-urls http://127.0.0.1:$((P + 3)) --initial-advertise-peer-urls http://127.0.0.1:$((P + 3)) --initial-cluster default=http://127.0.0.1:$((P + 3))
G=${CLUSTER_GATES:-TTLAfterFinished=true}     # without it 1.20 ignores ttlSecondsAfterFinished (finished_job_ttl of the work pool)
bg apiserver "$BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:$EP --bind-address="$NODE_IP" --advertise-address="$NODE_IP" --secure-port=$P --cert-dir="$R/certs" \
  --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key --service-account-issuer=https://kubernetes.default.svc --api-audiences=https://kubernetes.default.svc \
  --token-auth-file=tokens.csv --authorization-mode=Node,RBAC --service-cluster-ip-range=10.96.0.0/24 --allow-privileged=true --endpoint-reconciler-type=none \
  --kubelet-preferred-address-types=InternalIP --feature-gates="$G"
# --- containerd beside it
cat >containerd.toml <<E
version = 2
root = "$CLUSTER_HOME/containerd-root"
state = "$R/containerd"
oom_score = 0
[grpc]
  address = "$R/containerd.sock"
[debug]
  level = "warn"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$R/cni"
    max_conf_num = 1
E
bg containerd containerd -c "$R/containerd.toml"
for i in $(seq 100); do ctr -a "$R/containerd.sock" version >/dev/null 2>&1 && break; sleep 0.1; [ $i = 100 ] && die "containerd did not start" containerd; done
say "containerd answers"
ctr -a "$R/containerd.sock" -n k8s.io images ls -q 2>/dev/null | grep -qx localhost/pause:1 || {
  mkdir -p "$R/pause/rootfs"; install -m 755 "$BIN/pause" "$R/pause/rootfs/pause"
  "${CLUSTER_PYTHON:-python3}" "$HERE/image.py" pause "$R/pause/rootfs" "$R/containerd.sock"; say "pause image imported"; }
for i in $(seq 300); do curl -sk -H "Authorization: Bearer $AT" "https://$NODE_IP:$P/readyz" 2>/dev/null | grep -qx ok && break; sleep 0.1; [ $i = 300 ] && die "API server not ready in 30 s" apiserver; done
kc "$KUBECONFIG" "$AT"; kc "$R/kubelet.kubeconfig" "$KT"; say "API server ready"
bg kcm "$BIN/kube-controller-manager" --kubeconfig="$KUBECONFIG" --service-account-private-key-file=sa.key --root-ca-file=certs/apiserver.crt --leader-elect=false \
  --use-service-account-credentials=false --cert-dir="$R/kcm-certs" --bind-address=127.0.0.1 --port=0 --secure-port=$((P + 4)) --feature-gates="$G"
bg scheduler "$BIN/kube-scheduler" --kubeconfig="$KUBECONFIG" --leader-elect=false --bind-address=127.0.0.1 --port=0 --secure-port=$((P + 5)) --cert-dir="$R/sched-certs"
# --- kubelet (it sets some kernel values of the whole machine at start; down.sh puts the old ones back)
for k in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  [ -r /proc/sys/$k ] && echo "$k $(cat /proc/sys/$k)"; done >sysctl.before
: >"$R/resolv.conf"
cat >kubelet.yaml <<E
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_IP
port: $KP
readOnlyPort: 0
healthzPort: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupsPerQOS: true
enforceNodeAllocatable: []
failSwapOn: false
resolvConf: "$R/resolv.conf"
evictionHard: {memory.available: "100Mi", nodefs.available: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 2s
syncFrequency: 10s
runtimeRequestTimeout: 2m
serializeImagePulls: false
${CLUSTER_KUBELET_EXTRA:-}
E
bg kubelet "$BIN/kubelet" --config="$R/kubelet.yaml" --kubeconfig="$R/kubelet.kubeconfig" --root-dir="$R/kubelet" --cert-dir="$R/certs" \
  --container-runtime=remote --container-runtime-endpoint="unix://$R/containerd.sock" --hostname-override="$NODE" --node-ip="$NODE_IP" --network-plugin=
for i in $(seq 300); do [ "$(kubectl get node "$NODE" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null)" = True ] && break; sleep 0.2; [ $i = 300 ] && die "node not Ready in 60 s" kubelet; done
say "node $NODE Ready"
for i in $(seq 100); do kubectl -n default get sa default -o 'jsonpath={.secrets[0].name}' 2>/dev/null | grep -q . && break; sleep 0.1; done
say "service account of namespace default there; pods reach this machine at $NODE_IP"
echo "$KUBECONFIG"
