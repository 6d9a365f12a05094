# The two commands a newcomer needs are `make demo` and `make test`; both install what is missing (Debian 12, root).
SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH)
# One optimised build serves the demo, the bench and the system tests.
RELEASE := target/release/maru

.PHONY: demo test check bench soak fuzz conformance walk build guest clean help

help:
	@echo 'make demo    a cloud in namespaces of its own, a guest reached by SSH, a crash survived (KEEP=1 leaves it up)'
	@echo 'make test    everything that must hold'
	@echo 'make check   format, lints, invariants'
	@echo 'make bench   figures against the promises of SPECIFICATION.md (QUICK=1: a minute; ONLY=up,boot: some)'
	@echo 'make conformance LIST=file  the unmodified tempest against a fresh cloud (the interop list; REGEX= some of it)'
	@echo 'make walk    every command of the stock client for the five services, its effect checked (ONLY=network: some)'
	@echo 'make soak    long crash loops'
	@echo 'make fuzz    each parser of foreign bytes, FUZZ_SECONDS each (600)'

build:
	@MAKECMD=$(MAKECMDGOALS) scripts/bootstrap build
	cargo build --release --locked -p maru

guest:
	@MAKECMD=$(MAKECMDGOALS) scripts/bootstrap run test
	guest/build

demo: build guest
	@scripts/bootstrap client
	tests/demo/demo

FUZZ_SECONDS ?= 600
fuzz:
	@MAKECMD=fuzz scripts/bootstrap build
	fuzz/run all --seconds $(FUZZ_SECONDS)

bench: build guest
	cargo build --release --locked -p maru-load-transfer
	cargo build --release --locked -p maru-store --example bench_commit
	@ONLY="$(ONLY)" QUICK="$(QUICK)" tests/load/bench

LIST ?= tests/conformance/lists/interop-compute-identity-image-network-volume.txt
conformance: build guest
	@scripts/bootstrap client tempest
	@tests/conformance/run $(LIST)

walk: build guest
	@scripts/bootstrap client
	@ONLY="$(ONLY)" tests/clients/walk

check:
	@scripts/bootstrap build
	cargo fmt --all --check
	cargo xtask check
	cargo clippy --workspace --all-targets --locked -- -D warnings

test:
	@MAKECMD=test scripts/bootstrap build run test client tempest
	tests/run

soak:
	@MAKECMD=soak scripts/bootstrap build run test
	tests/soak
