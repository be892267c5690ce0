SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SILENT:

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
IMG ?= ghcr.io/cachewright/cachewright:$(VERSION)
KUBECTL ?= kubectl

# Tools are built on first use and stay in Go's build cache.
TOOL := go tool -modfile=hack/tools/go.mod
# The linter is golangci-lint with kube-api-linter built in.
LINT := $(TOOL) golangci-lint-kube-api-linter
MODULES := . hack/benchmarks hack/controlplane hack/tools
GENERATED := api/*/zz_generated.*.go config/crd/bases config/rbac/role.yaml

##@ General

.PHONY: help
help: ## Show this list
	awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

##@ Code

.PHONY: generate
generate: ## Regenerate the deep copies of the API types
	$(TOOL) controller-gen object:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: manifests
manifests: ## Regenerate the CRDs and the manager's role from the markers in the code
	$(TOOL) controller-gen crd paths=./api/... output:crd:dir=config/crd/bases
	$(TOOL) controller-gen rbac:roleName=manager-role paths=./controllers/... paths=./internal/... output:rbac:dir=config/rbac

.PHONY: fmt
fmt: ## Format the code
	$(LINT) fmt

.PHONY: vet
vet: ## Run go vet
	go vet ./...

.PHONY: lint
lint: ## Run every linter
	$(LINT) run
	cd hack/benchmarks && go tool -modfile=../tools/go.mod golangci-lint-kube-api-linter run

.PHONY: lint-fix
lint-fix: ## Run every linter and fix what can be fixed
	$(LINT) run --fix

.PHONY: verify
verify: generate manifests ## Check that generated files, go.mod files and kustomizations are in order
	changed=$$(git status --porcelain -- $(GENERATED)); \
	if [[ $$changed ]]; then \
	  echo "generated files differ from the committed ones; commit what 'make generate manifests' made:"; \
	  echo "$$changed"; git --no-pager diff -- $(GENERATED); exit 1; \
	fi
	for module in $(MODULES); do \
	  go -C $$module mod tidy -diff || { echo "$$module/go.mod is not tidy: run 'go mod tidy' there"; exit 1; }; \
	done
	for overlay in default namespaced network-policy prometheus argocd admission-policy samples/gitops; do $(TOOL) kustomize build config/$$overlay >/dev/null; done

.PHONY: vulncheck
vulncheck: ## Check the code against Go's vulnerability database (needs the network)
	$(TOOL) govulncheck ./...

##@ Build and test

.PHONY: controlplane
controlplane: ## Put kube-apiserver, etcd, kube-controller-manager and kubectl into bin/
	hack/controlplane/install.sh

.PHONY: build
build: ## Build bin/cachewright, and link it as the kubectl plugin bin/kubectl-cachewright
	go build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/cachewright ./cmd
	ln -sf cachewright bin/kubectl-cachewright

.PHONY: test
test: controlplane ## Run every test; REQUIRE_REDIS=1 fails those that find no redis-server, RERUNS=n runs failed ones again
	[[ $${REQUIRE_REDIS:-} ]] || command -v redis-server >/dev/null || \
	  echo "no redis-server on PATH: the tests on real servers are skipped"
	KUBEBUILDER_ASSETS=$(CURDIR)/bin $(TOOL) gotestsum --format pkgname --rerun-fails=$(or $(RERUNS),0) --rerun-fails-abort-on-data-race --packages ./... -- -race -timeout 20m

.PHONY: bench
bench: bench-full ## Measure everything, in less than 20 minutes, and write docs/benchmarks.md; bench-quick: see that it runs

bench-%: controlplane
	hack/benchmarks/run.sh $*

.PHONY: run
run: controlplane ## Run the operator on a local control plane
	go build -o bin/local ./hack/run && exec bin/local

.PHONY: demo
demo: controlplane ## Play the demo on a local control plane, and end
	go build -o bin/local ./hack/run && exec bin/local --demo

.PHONY: clean
clean: ## Remove what make has built (the user's cache folder stays)
	rm -rf bin

##@ Deploy

.PHONY: docker-build
docker-build: ## Build the image IMG
	docker build --build-arg VERSION=$(VERSION) --tag $(IMG) .

.PHONY: install
install: ## Install the CRDs into the current cluster
	$(KUBECTL) apply --server-side -k config/crd

.PHONY: uninstall
uninstall: ## Remove the CRDs, and every object of these kinds, from the current cluster
	$(KUBECTL) delete --ignore-not-found -k config/crd

.PHONY: deploy
deploy: ## Deploy the operator, from the image IMG, and its CRDs to the current cluster
	$(KUBECTL) kustomize config/default | sed 's|image: ghcr.io/cachewright/cachewright:.*|image: $(IMG)|' | $(KUBECTL) apply --server-side -f -

# The kinds go first, while an operator is still there to release their finalizers.
.PHONY: undeploy
undeploy: uninstall ## Remove the operator and its CRDs from the current cluster
	$(KUBECTL) delete --ignore-not-found -k config/default
