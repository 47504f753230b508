# Two commands on a fresh machine:  make demo   make test
# Both install what is missing (system packages by apt, Python packages into .venv) and may be repeated.

PYTHON ?= python3
BIN    := .venv/bin
SUDO   := $(if $(filter 0,$(shell id -u)),,sudo)
# The lab's tools may be in sbin, which a user's PATH lacks on Debian.
export PATH := $(PATH):/usr/sbin:/sbin
# tool:package of Debian and Ubuntu
TOOLS  := mmdebstrap:mmdebstrap mke2fs:e2fsprogs ip:iproute2 unshare:util-linux nsenter:util-linux ssh:openssh-client \
          $(if $(SUDO),fakeroot:fakeroot newuidmap:uidmap)
# Debian's archive keys, which the lab's nodes are verified with; another distribution has them in a package.
KEYS   := /usr/share/keyrings/debian-archive-keyring.gpg

.PHONY: demo test install system lint image unit browser accuracy example redraw lock docs clean

demo: install
	$(BIN)/lvsbench run --mode all --object 64k --connections keepalive --blocks 3 --duration 2 --warmup 0.5

# Types and the lab's image take a core each, and neither waits for the other.
test: install
	$(MAKE) -j2 --output-sync lint image
	$(MAKE) unit

install: system .venv/installed

# apt is asked only where something is missing.
system:
	@missing=""; \
	for pair in $(TOOLS); do command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair#*:}"; done; \
	test -e $(KEYS) || missing="$$missing debian-archive-keyring"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	if [ -n "$$missing" ]; then \
	  echo "Installing by apt:$$missing"; \
	  $(SUDO) apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
	fi

.venv/installed: requirements.lock pyproject.toml
	@echo "Installing the Python packages of requirements.lock into .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install -q --compile-bytecode --require-hashes -r requirements.lock
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install -q --no-deps -e .
	@touch $@

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

image: install
	@echo "Building the image of the lab's nodes, if it is not there"
	@$(BIN)/python -c "from lvsbench.lab import image; image.ensure()"

# Tests that boot kernels keep to a lab for each worker, and a file to its worker.
unit: install
	$(BIN)/pytest -q -m "not lab and not browser" -n 2
	$(BIN)/pytest -m lab -n 2 --dist loadfile

# The page in a real browser: nothing leaves the file, axe-core finds nothing. Installs Chromium where it is missing.
browser: install
	@command -v chromium >/dev/null || { $(SUDO) apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -qq -y --no-install-recommends chromium >/dev/null; }
	$(BIN)/pytest -q -m browser

# Every fault of the catalogue injected into the lab and diagnosed; half an hour. Writes docs/accuracy.md.
accuracy: install
	$(BIN)/python benchmarks/accuracy.py $(ACCURACY)

# The example runs of reports/, measured again, six minutes on a machine that should do nothing else meanwhile.
example: install
	$(BIN)/python reports/example.py
	$(BIN)/python docs/redraw.py

# What is shown of the example runs: their pages, README's results, the notebooks; tests hold them equal.
redraw: install
	$(BIN)/python docs/redraw.py

# Written again after a change of the dependencies in pyproject.toml.
lock: install
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --group dev pyproject.toml -o requirements.lock --no-header

# The page of each finding, from the registry of checks, and that of the faults; tests hold them equal.
docs: install
	$(BIN)/python -m lvsbench.checks.document
	$(BIN)/python -m lvsbench.faults.document

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
