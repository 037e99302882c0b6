# Netspine: `make` alone prints this help. Everything runs from a checkout; nothing outside of it is changed but Debian packages.
SHELL := /bin/bash
PYTHON ?= $(shell for p in /usr/bin/python3 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PACKAGES := nftables python3-nftables dnsmasq-base haproxy iproute2 busybox-static conntrack iputils-arping iputils-ping \
	curl iperf3 tcpdump openssl procps python3-venv \
	charon-systemd strongswan-swanctl libcharon-extauth-plugins libcharon-extra-plugins libstrongswan-standard-plugins libstrongswan-extra-plugins \
	strongswan-pki conntrackd frr wireguard-go wireguard-tools openvswitch-switch ethtool xl2tpd ppp user-mode-linux \
	isc-dhcp-client
EXAMPLE ?= 1
ZONE ?= advanced
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup packages run test check test-net golden generated bench clean

help: ## print what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: packages .venv/ready ## install what is needed: Debian packages and a virtual environment

packages:
	@missing=$$(dpkg-query -W -f '$${Package} $${db:Status-Status}\n' $(PACKAGES) 2>/dev/null | awk '$$2=="installed"{print $$1}' \
		| sort | comm -23 <(printf '%s\n' $(PACKAGES) | sort) -); \
	if [ -n "$$missing" ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; fi

.venv/ready: pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed."; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

run: setup ## run a whole cloud in the foreground (EXAMPLE=0: an empty zone; ZONE=basic: a basic one)
	@$(BIN)/netspine run --zone $(ZONE) $(if $(filter 0,$(EXAMPLE)),--no-example)

test: setup check ## run every test: style, unit, golden, API, work, conformance, namespaces, clients
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not netns" tests
	$(BIN)/python -m pytest -q -m netns tests

check: .venv/ready ## ruff, mypy --strict, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-net: setup ## only the tests with packets in namespaces (as root)
	$(BIN)/python -m pytest -q -m netns tests

golden: .venv/ready ## rewrite the golden files; read the difference before you commit it
	$(BIN)/python -m tests.golden

generated: .venv/ready ## rewrite the API docs and openapi.json from the registry
	$(BIN)/python -m controlplane.documents

bench: setup ## measure the speed bars, against the raw primitives in the same run
	$(BIN)/python -m bench

clean: ## remove the virtual environment and caches; var/ stays
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache
