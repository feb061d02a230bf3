# The common part of e2e/up, e2e/down and e2e/test: the tools, the images, and the kind cluster.
# Source it in bash with `set -euo pipefail`.
#
#   WEIR_KIND           the cluster's name (weir)
#   WEIR_IP_FAMILY      what the cluster of kind speaks: ipv4 (the default), ipv6 or dual. Each is a cluster of its own, with the family behind its name
#   WEIR_KUBERNETES     where tools, kubeconfig and records of what was done lie (target/e2e-kubernetes)
#   KUBECONFIG          another cluster than the one of kind; then WEIR_LOAD_IMAGE is a command that gets an image's name and makes it known there
#   WEIR_NODE_IMAGE     the node image; by default kindest/node where it can be pulled, else one that is built here (node-image/build)

shopt -s inherit_errexit
e2e=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$e2e/.." && pwd)
ip_family=${WEIR_IP_FAMILY:-ipv4}
case $ip_family in
  ipv4) other_family= ;;
  ipv6 | dual) other_family=-$ip_family ;;
  *) echo "WEIR_IP_FAMILY=$ip_family: there are ipv4, ipv6 and dual" >&2; exit 2 ;;
esac
kind_name=${WEIR_KIND:-weir}$other_family
state=${WEIR_KUBERNETES:-$root/target/e2e-kubernetes}
mkdir -p "$state/bin"
state=$(cd "$state" && pwd)
kubeconfig=$state/kubeconfig$other_family
export PATH=$state/bin:$PATH
kind_version=$(cat "$e2e/node-image/kind-version")
helm_version=v3.19.0
# If no registry answers, the built node image has this version too (node-image/go.mod).
kindest_node=kindest/node:v1.34.0
target=$(rustc -vV | sed -n 's/^host: //p')

# Without buildx, docker warns about its legacy builder.
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0

say() { echo "== $* ($SECONDS s)" >&2; }

retry() {
  local n
  for n in 1 2 3 4 5; do
    "$@" && return 0
    say "attempt $n failed: $*"
    sleep $((n * 3))
  done
  return 1
}

# Go 1.21 or newer: the machine's own, or the one that e2e/install fetched.
go_command() {
  if [ "$(go env GOVERSION 2>/dev/null | sed 's/^go1\.\([0-9]*\).*/\1/')" -ge 21 ] 2>/dev/null; then
    echo go
  else
    echo "${WEIR_E2E_CLIENTS:-$root/target/e2e-clients}/go-toolchain/bin/go"
  fi
}

# go_tool NAME PACKAGE VERSION
go_tool() {
  local name=$1 package=$2 version=$3
  [ "$(cat "$state/.$name" 2>/dev/null)" = "$version" ] && [ -x "$state/bin/$name" ] && return 0
  say "$name $version"
  CGO_ENABLED=0 GOBIN=$state/bin GOFLAGS=-trimpath retry "$(go_command)" install "$package@$version" >&2
  echo "$version" >"$state/.$name"
}

helm_tool() { go_tool helm helm.sh/helm/v3/cmd/helm "$helm_version"; }
kind_tool() { go_tool kind sigs.k8s.io/kind "$kind_version"; }

# promtool from Debian's Prometheus package, unpacked without installing it.
promtool_tool() {
  command -v promtool >/dev/null && return 0
  local unpacked=$state/prometheus
  mkdir -p "$unpacked"
  (cd "$unpacked" && retry apt-get download -qq prometheus && dpkg -x prometheus_*.deb .) >&2
  mv "$unpacked/usr/bin/promtool" "$state/bin/promtool"
  rm -r "$unpacked"
}

# The name of the node image, after pulling or building it.
node_image() {
  if [ -n "${WEIR_NODE_IMAGE:-}" ]; then
    echo "$WEIR_NODE_IMAGE"
  elif docker image inspect "$kindest_node" >/dev/null 2>&1 || timeout 300 docker pull -q "$kindest_node" >/dev/null 2>&1; then
    echo "$kindest_node"
  else
    GO=$(go_command) "$e2e/node-image/build"
  fi
}

# The machine's kubectl, or the one in the node image.
kubectl_tool() {
  command -v kubectl >/dev/null && return 0
  local container
  container=$(docker create "$1" none)
  docker cp -L "$container:/usr/bin/kubectl" "$state/bin/kubectl" >/dev/null
  docker rm "$container" >/dev/null
}

# The static binaries of the product; the images hold nothing else. e2e/test has built them already.
binaries() {
  [ "${WEIR_BIN:-}" != "$root/target/$target/release/weir" ] || return 0
  RUSTFLAGS="-C target-feature=+crt-static ${RUSTFLAGS:-}" cargo build --release --locked --target "$target" \
    --manifest-path "$root/Cargo.toml" -p weir -p weir-broker -p weir-operator --bins >&2
}

# image PROGRAM: builds a program's image and prints its name. The tag is the hash of its contents.
image() {
  local program=$1 context=$state/image-$1 name
  rm -rf "$context"
  mkdir -p "$context"
  objcopy --strip-debug "$root/target/$target/release/$program" "$context/$program"
  name=localhost/$program:$(cat "$context/$program" "$root/Dockerfile" | sha256sum | cut -c1-12)
  if ! docker image inspect "$name" >/dev/null 2>&1; then
    # Only this program's stage, because the context has only its binary.
    awk -v stage="AS $program\$" '/^FROM/ { on = $0 ~ stage } on' "$root/Dockerfile" | docker build --quiet -t "$name" -f - "$context" >/dev/null
  fi
  rm -rf "$context"
  echo "$name"
}

# The image of a Kafka client for `helm test`: Debian's kcat with its libraries, and a shell. Prints
# its name.
client_image() {
  local context=$state/image-client name file
  command -v kcat >/dev/null && [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1 || {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends kcat busybox-static >/dev/null
  } >&2
  rm -rf "$context"
  mkdir -p "$context/bin" "$context/tmp"
  cp "$(command -v kcat)" /bin/busybox "$context/bin/"
  for file in sh seq sort uniq wc grep sleep echo; do ln -s busybox "$context/bin/$file"; done
  ldd "$context/bin/kcat" | grep -oE '/[^ ]+' | sort -u | while read -r file; do
    mkdir -p "$context$(dirname "$file")"
    cp -L "$file" "$context$file"
  done
  printf 'FROM scratch\nCOPY . /\nENV PATH=/bin\n' >"$state/client.Dockerfile"
  name=localhost/weir-test-client:$(cd "$context" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12)
  docker image inspect "$name" >/dev/null 2>&1 || docker build --quiet -t "$name" -f "$state/client.Dockerfile" "$context" >/dev/null
  rm -rf "$context"
  echo "$name"
}

# values OPERATOR BROKER CLIENT: the chart's values for these images.
values() {
  cat <<END
image: {repository: ${1%:*}, tag: "${1##*:}"}
brokerImage: {repository: ${2%:*}, tag: "${2##*:}"}
watch: {namespaces: ["*"]}
test: {image: "$3"}
END
}

# load IMAGE: loads an image on every node.
load() {
  if [ -n "${WEIR_LOAD_IMAGE:-}" ]; then
    $WEIR_LOAD_IMAGE "$1" >&2
  else
    kind load docker-image --name "$kind_name" "$1" >"$state/load.log" 2>&1 || { cat "$state/load.log" >&2; return 1; }
  fi
}

# The cluster: three nodes in three zones, each of which accepts pods.
cluster() {
  local node_image=$1 container
  if ! kind get clusters 2>/dev/null | grep -qx "$kind_name"; then
    say "kind cluster $kind_name of $node_image"
    kind create cluster --name "$kind_name" --image "$node_image" --kubeconfig "$kubeconfig" --wait 120s --config - >"$state/kind.log" 2>&1 <<END || { tail -n 30 "$state/kind.log" >&2; return 1; }
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {ipFamily: $ip_family}
nodes:
  - {role: control-plane, labels: {topology.kubernetes.io/zone: zone-a}}
  - {role: worker, labels: {topology.kubernetes.io/zone: zone-b}}
  - {role: worker, labels: {topology.kubernetes.io/zone: zone-c}}
END
    KUBECONFIG=$kubeconfig kubectl taint nodes -l node-role.kubernetes.io/control-plane node-role.kubernetes.io/control-plane- >/dev/null
    KUBECONFIG=$kubeconfig kubectl -n kube-system rollout status deployment/coredns --timeout=120s >/dev/null
  fi
  # After a restart of the machine the nodes exist but are stopped.
  for container in $(kind get nodes --name "$kind_name"); do
    [ "$(docker inspect -f '{{.State.Running}}' "$container")" = true ] || docker start "$container" >/dev/null
  done
  [ -e "$kubeconfig" ] || kind get kubeconfig --name "$kind_name" >"$kubeconfig"
}
