#!/usr/bin/env bash
# Links kube-apiserver, etcd, kubectl and kube-controller-manager into bin/, for the tests and for `make run`.
#
# They come from KUBEBUILDER_ASSETS if that is set, else by setup-envtest's download, and what neither has is built from
# Go modules: minutes, but once per machine and version, because all is kept in the user's cache folder.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${here%/hack/controlplane}
bin=$root/bin

fail() { echo "controlplane: $*" >&2; exit 1; }

# The Kubernetes version has one home: k8s.io/api in the product's go.mod.
api=$(sed -nE 's|^(require)?[[:space:]]+k8s\.io/api (v0\.[0-9.]+).*|\2|p' "$root/go.mod")
[[ $api ]] || fail "go.mod does not require a k8s.io/api v0.x.y"
version=v1.${api#v0.}
stale=$(grep -nE 'k8s\.io/kubernetes v|=> k8s\.io/' "$here/go.mod" | grep -vE " ($version|$api)( //.*)?$" || true)
[[ -z $stale ]] || fail "go.mod requires k8s.io/api $api, so these lines of hack/controlplane/go.mod must say $version" \
  "(k8s.io/kubernetes) or $api (the others). Change them and run \`go mod tidy\` there:"$'\n'"$stale"

GOOS=$(go env GOHOSTOS) GOARCH=$(go env GOHOSTARCH)
export GOOS GOARCH
cache=${XDG_CACHE_HOME:-$HOME/.cache}/cachewright/controlplane/$version-$GOOS-$GOARCH
mkdir -p "$bin" "$cache"

# Programs enter the cache by rename only, so that an interrupted run leaves none half-written.
work=$(mktemp -d "$cache/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Asks for 1.x.*, because not every patch release has an archive. None of them holds a kube-controller-manager.
download() {
  local minor=${version#v} limit folder
  limit=$(command -v timeout || true) # not on macOS
  folder=$(cd "$root" && ${limit:+"$limit" 120} go tool -modfile=hack/tools/go.mod \
    setup-envtest use "${minor%.*}.x" --print path --bin-dir "$work") || return 0
  mv "$folder"/{kube-apiserver,etcd,kubectl} "$cache"
}

build() {
  "$here/build.sh" "$work" "$version" "$1"
  mv "$work/$1" "$cache"
}

assets=${KUBEBUILDER_ASSETS:-}
[[ -z $assets || -d $assets ]] || fail "KUBEBUILDER_ASSETS=$assets is not a folder"
[[ -z $assets ]] || assets=$(cd "$assets" && pwd)
[[ $assets != "$bin" ]] || assets= # our own links

[[ $assets || -x $cache/kube-apiserver ]] || download
for program in kube-apiserver etcd kubectl kube-controller-manager; do
  source=$cache/$program
  if [[ $assets && -x $assets/$program ]]; then
    source=$assets/$program
  elif [[ $assets && $program != kube-controller-manager ]]; then
    fail "KUBEBUILDER_ASSETS=$assets holds no $program"
  elif [[ ! -x $source ]]; then
    build "$program"
  fi
  ln -sfn "$source" "$bin/$program"
done
