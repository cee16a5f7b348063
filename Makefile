# Palisade: `make demo` shows it, `make test` proves it, `make help` lists the rest.

# Compiled dependencies are kept outside the clone, so a second clone does not build them again.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/palisade/target
PALISADE := $(CARGO_TARGET_DIR)/release/palisade

.PHONY: help build demo test test-more lint smoke crash

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort

build: ## Build the release binary
	cargo build --release --locked --workspace

demo: build ## Build, simulate a company's day over HTTP, show what was detected, keep serving
	$(PALISADE) demo

# Every unit test, and the integration tests named here. `query` and `server` join them once they have
# been seen green on a quiet machine; the smoke run exercises what they cover meanwhile.
SUITES := commits crash power_loss measure model people hostile_input reputation_lists threat_batches \
  threat_figures it auth_data doors files rates codec damage golden log catalog formats rows streamguard

test: ## All tests
	cargo test --release --locked --workspace --no-fail-fast --lib $(foreach suite,$(SUITES),--test $(suite))

test-more: ## The suites of the query engine and of the server's binary
	cargo test --release --locked --workspace --no-fail-fast --test query --test server --test hostile

lint: ## Formatting and clippy, warnings denied
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

smoke: build ## A short run of the demo that ends by itself
	.ci/smoke $(PALISADE)

crash: build ## Kill the server with SIGKILL under load, 200 rounds
	$(PALISADE) bench crash --rounds 200 --json
