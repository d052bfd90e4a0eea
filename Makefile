# `make help` lists what there is to do.
#   PYTHON=   the interpreter, a name or a path (default: the newest python3 on PATH)
#   PROFILE=  how the extension is built: release, quick to compile faster, or pgo for what is published
ifeq ($(origin PROFILE),undefined)
PROFILE := release
bench: PROFILE := $(if $(QUICK),release,pgo)
wheels: PROFILE := pgo
endif
.PHONY: help demo examples test conformance ecosystem fuzz fire soak bench docs wheels newcomer lint fmt clean
python = $(eval python := $(shell tools/environment find $(PYTHON)))$(or $(python),$(error no Python to work with))
venv = $(eval venv := .venv/$(shell tools/environment tag $(python)))$(venv)
# What the environment is to have: built, or has-SET for one of the sets of packages below.
have = @$(MAKE) -s PROFILE=$(PROFILE) $(patsubst %,$(venv)/.%,$(patsubst built,built-$(PROFILE),$(1)))
sources := $(shell find crates python Cargo.toml Cargo.lock pyproject.toml -type f ! -name '*.so' ! -name '*.pyc')
needs_demo := aiohttp rich
needs_examples := aiohttp rich websockets fastapi uvicorn httpx asyncpg distributed hypercorn ipykernel nbclient pytest-asyncio redis opentelemetry-sdk
needs_bench := aiohttp uvicorn httptools
peers := uvloop rloop rsloop zuvloop
needs_test := pytest pytest-timeout hypothesis pyyaml
needs_docs := mkdocs-material mkdocstrings[python]
needs_lint := ruff mypy basedpyright
needs_wheels := 'maturin>=1.12,<2' ziglang auditwheel twine

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20
	@sed -n 's/^#   \([A-Z]*=\) */  \1\t/p' Makefile | expand -t 20

demo: ## Build, run the main job on aioxide, and show its figure on other loops
	$(call have,built has-demo tried-uvloop)
	$(venv)/bin/aioxide examples/main_job.py
	$(venv)/bin/python examples/main_job.py --brief
	@! $(venv)/bin/python -c 'import uvloop' 2>/dev/null || $(venv)/bin/python -W ignore -c \
	    'import runpy, uvloop; uvloop.install(); runpy.run_path("examples/main_job.py", run_name="__main__")' --brief

test: ## Run the tests of the Rust crates and of the Python package
	$(call have,built has-test)
	cargo test --quiet -p aioxide-core -p aioxide-sys
	$(venv)/bin/python -m pytest --timeout 600 --durations 10 --ignore tests/examples $(ARGS)

examples: ## Run every example, and the recipes for servers, test runners and notebooks
	$(call have,built has-test has-examples)
	ALL_RECIPES=1 $(venv)/bin/python -m pytest --timeout 300 tests/examples tests/recipes $(ARGS)

conformance: ## Run CPython's own asyncio tests (MODULES=test_tasks,... picks some)
	$(call have,built)
	$(venv)/bin/python tests/conformance/run.py $(if $(MODULES),--modules $(MODULES)) $(ARGS)

ecosystem: ## Run other people's own tests, on asyncio and on aioxide (PROJECTS=a,b picks some, ALL=1 all)
	$(call have,built)
	$(venv)/bin/python tests/ecosystem/run.py $(if $(PROJECTS),--projects $(PROJECTS)) $(if $(ALL),--all) $(ARGS)

fuzz: ## Run random programs on asyncio and on aioxide until they differ
	$(call have,built has-test)
	FUZZ=1 EXAMPLES=1000000 $(venv)/bin/python -m pytest tests/differential $(ARGS)

fire: ## Run the tests under fire at full size: hostile peers, cancelled connects, no descriptors left
	$(call have,built has-test)
	FIRE=full $(venv)/bin/python -m pytest --timeout 1200 tests/fire $(ARGS)

soak: ## Run mixed traffic for ten minutes (SECONDS=) and see that nothing grows
	$(call have,built)
	$(venv)/bin/python tests/fire/soak.py $(SECONDS)

bench: ## Measure speed against asyncio and other loops, and write it down (QUICK=1 for a rough look, ONLY='io/*')
	$(call have,built has-bench $(addprefix tried-,$(peers)))
	$(venv)/bin/python benchmarks/bench.py $(if $(QUICK),--quick) $(if $(ONLY),--only '$(ONLY)') $(ARGS)

docs: ## Build the site of documentation into target/site
	$(call have,has-docs)
	NO_MKDOCS_2_WARNING=1 $(venv)/bin/mkdocs build --strict

wheels: ## Build the source package and wheels of all Pythons (VERSIONS="3.13 3.14" picks), and try them
	$(call have,has-wheels)
	tools/wheels $(venv) $(PROFILE) $(VERSIONS)

newcomer: ## Do what the README says in a clean clone, without environments and caches, and run every example
	$(python) tools/newcomer $(WITHOUT)

lint: ## Check formatting, clippy, ruff, types and the house rules
	$(call have,built has-lint has-test)
	cargo fmt --all --check
	PYO3_PYTHON=$(abspath $(venv))/bin/python cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(venv)/bin/ruff check
	$(venv)/bin/ruff format --check
	$(venv)/bin/mypy && $(venv)/bin/mypy tests/typing/program.py && $(venv)/bin/mypy examples/*.py
	$(venv)/bin/basedpyright -p tests/typing --pythonpath $(venv)/bin/python
	$(venv)/bin/python -P -m mypy.stubtest aioxide --concise --ignore-disjoint-bases --ignore-unused-allowlist \
	    --allowlist tests/typing/stubtest.txt
	$(venv)/bin/python -m pytest -q tests/tidy

fmt: ## Format the code, and bring ARCHITECTURE.md's code map up to date
	$(call have,has-lint)
	cargo fmt --all
	$(venv)/bin/ruff check --fix
	$(venv)/bin/ruff format
	tools/code-map

clean: ## Remove everything that was built
	rm -rf .venv .ecosystem target

# Environments: .made is the empty one, .has-* say what has been installed, .built-* which build of aioxide.
.SECONDARY:
.venv/%/.made:
	tools/environment create $(python) .venv/$*
	@touch $@

$(foreach set,demo examples test lint docs bench wheels,$(eval .venv/%/.has-$(set): .venv/%/.made Makefile ; \
    tools/environment install .venv/$$* $(needs_$(set)) && touch $$@))

# Other loops, each left out where it has no wheel for this Python.
$(foreach peer,$(peers),$(eval .venv/%/.tried-$(peer): .venv/%/.made ; \
    @tools/environment install .venv/$$* --only-binary :all: $(peer) 2>/dev/null || echo "no $(peer) for this Python"; touch $$@))

.venv/%/.built-$(PROFILE): .venv/%/.made $(sources)
	@tools/environment install .venv/$* 'maturin>=1.12,<2'
	@rm -rf .venv/$*/.built-* .venv/$*/wheels
	PATH=$$PWD/.venv/$*/bin:$$PATH tools/build .venv/$*/bin/python $(PROFILE) --compatibility linux --out .venv/$*/wheels
	@tools/environment install .venv/$* --force-reinstall --no-deps .venv/$*/wheels/*.whl
	@touch $@
