# What develops the template. Its users need none of this, only cookiecutter.

PYTHON := .venv/bin/python
LOCK := .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-emit-index-url --custom-compile-command "make lock" --python-version

# $(call LOCK_TYPE,<type of model>,<folder that keeps its requirements>)
define LOCK_TYPE
generated=$$(mktemp -d) && .venv/bin/cookiecutter --no-input --output-dir $$generated . model_type=$(1) model_name=locked >/dev/null \
		&& $(MAKE) --directory $$generated/locked lock UV=$(CURDIR)/.venv/bin/uv \
		&& cp $$generated/locked/requirements*.txt '{{cookiecutter.model_name}}/$(2)/' && rm -r $$generated
endef

.DEFAULT_GOAL := help
.PHONY: help setup demo stop test bench docs lint format lock clean

help: ## List the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: .venv/ready ## Make .venv with everything that develops the template

.venv/ready: requirements-dev.txt requirements-uv.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, python3 is " + sys.version.split()[0])'
	@echo "Setting up .venv (once; a minute) ..."
	@python3 -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-uv.txt
	@.venv/bin/uv pip sync --quiet --python .venv --require-hashes requirements-dev.txt
	@touch $@

demo: .venv/ready ## Generate a repository, push it, and watch the push become an answering endpoint
	@$(PYTHON) -m sandbox demo

stop: .venv/ready ## Stop what `make demo` left running
	@$(PYTHON) -m sandbox stop

test: .venv/ready ## Run the whole test suite
	@$(PYTHON) -m sandbox engine
	@.venv/bin/pytest

bench: .venv/ready ## Measure the generated handler beside its peers and write the tables
	@$(PYTHON) -m benchmarks

docs: .venv/ready ## Build the documentation site into site/
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	@echo "site/index.html"

lint: .venv/ready ## Check style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/ready ## Put the code in its standard form
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

lock: .venv/ready ## Compile all requirements again: these, those of each type of model, and the benchmarks'
	$(LOCK) 3.11 pyproject.toml --group dev --output-file requirements-dev.txt
	echo uv | $(LOCK) 3.11 - --constraint requirements-dev.txt --output-file requirements-uv.txt
	$(call LOCK_TYPE,classification,.)
	$(call LOCK_TYPE,image,_types/image)
	rm '{{cookiecutter.model_name}}/_types/image/requirements-uv.txt'
	$(LOCK) 3.13 tests/recipes/requirements.in --constraint '{{cookiecutter.model_name}}/requirements-dev.txt' \
		--output-file tests/recipes/requirements.txt
	for peer in bare_onnx usual_way; do $(LOCK) 3.13 benchmarks/peers/$$peer/requirements.in \
		--constraint '{{cookiecutter.model_name}}/requirements-dev.txt' \
		--output-file benchmarks/peers/$$peer/requirements.txt || exit 1; done

clean: stop ## Remove what was made, but not what was written
	rm -rf .venv .sandbox site .mypy_cache .pytest_cache .ruff_cache .hypothesis
