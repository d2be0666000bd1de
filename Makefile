# Everything runs from .venv, which the first target that needs it makes. `make help` lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTHON_MIN := (3, 11)
# Each test worker keeps a server and a database busy. On a larger machine: make test WORKERS=4
WORKERS := 2
# Only for `make lock`; users never need it.
UV_VERSION := 0.13.8

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: .venv/.installed ## Run the whole flow on this machine: usage, billing run, invoices, credits, refund
	@$(BIN)/billing demo

.PHONY: trace
trace: .venv/.installed ## Import a trace of real requests, bill it, compare (DATA=FILE)
	@test -n "$(DATA)" || { echo "which file? make trace DATA=FILE" >&2; exit 1; }
	@$(BIN)/billing trace "$(DATA)"

.PHONY: test
test: .venv/.installed ## Run all tests
	@$(BIN)/pytest -n $(WORKERS)

.PHONY: check-migrations
check-migrations: .venv/.installed ## Run the migrations, and compare what they make with the tables in the code
	@$(BIN)/pytest tests/migrations

.PHONY: stubs
stubs: .venv/.installed ## Build the wheel of typed stubs that sibling services install, into dist/
	@cd stubs && ../$(BIN)/hatchling build --target wheel --directory ../dist

.PHONY: bench
bench: .venv/.installed ## Measure every figure against its floor, and write docs/performance.md
	@$(BIN)/python -m benchmarks

.PHONY: venv
venv: .venv/.installed ## Install the locked dependencies and this project into .venv
	@:

# A stamp file, so that a changed lock or project file installs again and nothing else does.
# The project goes in without its dependencies (pip cannot check hashes and edit at once) and without
# build isolation (its build backend is in the lock too).
.venv/.installed: requirements-dev.txt pyproject.toml
	@set -e; python=; \
	for candidate in python3 python3.14 python3.13 python3.12 python3.11; do \
	  if command -v "$$candidate" >/dev/null && \
	     "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] < $(PYTHON_MIN))' 2>/dev/null; then \
	    python=$$candidate; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11 or newer is needed; python3 is: $$(python3 --version 2>&1 || true)" >&2; exit 1; \
	fi; \
	echo "Installing dependencies into .venv (about a minute the first time) ..."; \
	"$$python" -m venv .venv; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --only-binary :all: \
	  --require-hashes -r requirements-dev.txt; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps \
	  --no-build-isolation -e .; \
	touch $@

.PHONY: format
format: .venv/.installed ## Format the code and the protos, and fix what ruff can fix
	@$(BIN)/ruff check --quiet --fix-only
	@$(BIN)/ruff format --quiet
	@$(BIN)/buf format -w

.PHONY: lint
lint: .venv/.installed ## Check style, types, layers, the contract and that generated code is fresh
	@echo "ruff"
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --diff
	@echo "mypy"
	@$(BIN)/mypy --no-error-summary
	@echo "import-linter"
	@report=$$($(BIN)/lint-imports 2>&1) || { echo "$$report"; exit 1; }
	@echo "hadolint, yamllint"
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/yamllint --strict deploy/compose.yaml deploy/kubernetes deploy/kubernetes-mtls deploy/prometheus
	@echo "buf"
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code
	@$(OUR_PROTOS_IMAGE) | $(BIN)/buf breaking - --against protos/image.binpb
	@echo "generated code"
	@set -e; fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(BUF_GENERATE) --output "$$fresh"; \
	for package in $(GENERATED); do \
	  diff -r --exclude=__init__.py --exclude=__pycache__ "$$fresh/$$package" "$$package" || \
	    { echo "$$package is stale: run make generate" >&2; exit 1; }; \
	done

GENERATED := src/billing/v1 src/invoicing/v1 src/buf/validate
BUF_GENERATE := $(BIN)/buf generate --template protos/buf.gen.yaml
# buf compares modules one by one, and the vendored protos are a module: so both sides are one image of ours alone.
OUR_PROTOS_IMAGE := $(BIN)/buf build --path protos/billing --path protos/invoicing --output -

.PHONY: generate
generate: .venv/.installed ## Write the Python code of the protos
	@rm -f $(GENERATED:=/*_pb2*)
	@$(BUF_GENERATE)

.PHONY: proto-baseline
proto-baseline: .venv/.installed ## Accept the protos as they are as what buf breaking compares with: at a release
	@$(OUR_PROTOS_IMAGE) --exclude-source-info >protos/image.binpb

# The locks name no index, so they install from whatever index pip is configured with.
# Pins stay as they are unless asked: make lock UPGRADE=1
COMPILE = "$$tool/bin/uv" --quiet pip compile --universal --python-version 3.11 --generate-hashes \
	  --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

.PHONY: lock
lock: ## Write the three requirements files from pyproject.toml (UPGRADE=1 takes newer versions)
	@set -e; tool=$$(mktemp -d); trap 'rm -rf "$$tool"' EXIT; \
	python3 -m venv "$$tool"; \
	"$$tool/bin/python" -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); \
	$(COMPILE) pyproject.toml -o requirements.txt >/dev/null; \
	$(COMPILE) pyproject.toml --group dev -c requirements.txt -o requirements-dev.txt >/dev/null; \
	$(COMPILE) --group build -c requirements-dev.txt -o requirements-build.txt >/dev/null; \
	if grep -n '://' requirements*.txt; then echo "a lock names a URL" >&2; exit 1; fi

.PHONY: clean
clean: ## Remove .venv, caches and build output
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	@find src tests migrations -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
