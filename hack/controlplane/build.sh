#!/usr/bin/env bash
# Builds from their Go modules, into the folder $1 and for Kubernetes version $2 (v1.x.y, as required by go.mod beside
# this file), the programs named after them: kube-apiserver, kube-controller-manager, kubectl, etcd.
set -euo pipefail
out=$1 version=$2
cd "$(dirname "${BASH_SOURCE[0]}")"

IFS=. read -r major minor _ <<<"${version#v}"
v=k8s.io/component-base/version
ldflags="-s -w -X $v.gitVersion=$version -X $v.gitMajor=$major -X $v.gitMinor=$minor -X $v.gitTreeState=clean"

for program in "${@:3}"; do
  package=k8s.io/kubernetes/cmd/$program
  [[ $program != etcd ]] || package=go.etcd.io/etcd/server/v3
  echo "building $program for Kubernetes $version from Go modules (the first time takes minutes)" >&2
  CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "$ldflags" -o "$out/$program" "$package"
done
