# burnin: `make demo` burns in a twin rack, `make test` passes the tests. Both need Python 3.11+ and nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# A Python that keeps no bytecode compiles all of burnin at every start, and tests start thousands.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long matrix checks-matrix bench captures kernels kernels-check picture lint clean help

help:            ## what can be made
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/.run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	touch $(VENV)/.run $@

demo: $(VENV)/.run  ## burn in a twin GB300 NVL72 with two planted weak parts
	$(BIN)/burnin demo

test: $(VENV)/.dev  ## unit tests, then real SSH and whole runs on the twin
	$(BIN)/python -m pytest -n 3 --dist worksteal tests/real tests/unit
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/twin --ignore tests/twin/test_live.py
	$(BIN)/python -m pytest tests/twin/test_live.py

test-long: $(VENV)/.dev  ## whole runs that CI has no time for
	$(BIN)/python -m pytest -m long

lint: $(VENV)/.dev  ## style, types, import contracts
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

matrix: $(VENV)/.run  ## every fault, healthy seeds; writes docs/matrix.md (about an hour)
	$(BIN)/python -m bench.matrix

checks-matrix: $(VENV)/.run  ## every check against planted faults; writes docs/checks-matrix.md (half an hour)
	$(BIN)/python -m bench.checks

bench: $(VENV)/.dev  ## SSH, agent and store, each beside its peers
	$(BIN)/python -m bench.ssh
	$(BIN)/python -m bench.agent
	$(BIN)/python -m bench.store

captures: $(VENV)/.run  ## every parser meets every capture; writes docs/tools.md
	$(BIN)/python -m bench.captures

picture: $(VENV)/.run  ## the README's picture, from a real run
	$(BIN)/python docs/picture.py

# burn, consensus, hbm: PTX 7.0 and compute_80, which assembles on every driver and GPU from Ampere on. *_sm90a, *_sm100f: what one
# family alone understands, in the oldest PTX that knows it. Comments carry the compiler's build and go.
CU := $(wildcard burnin/agent/kernels/*.cu)
define compile
case $$cu in \
  *_sm90a.cu)  arch=-arch=sm_90a ptx=8.0 targets="sm_90a" ;; \
  *_sm100f.cu) arch=-gencode=arch=compute_100f,code=compute_100f ptx=8.8 targets="sm_100 sm_103" ;; \
  *)           arch=-arch=compute_80 ptx=7.0 targets="sm_80 sm_90 sm_100 sm_103 sm_120" ;; \
esac; \
nvcc -ptx $$arch -O3 -o - $$cu | sed -e "s/^\.version .*/.version $$ptx/" -e 's://.*::' -e 's/[ \t]*$$//' -e '/^$$/d'
endef

kernels:         ## recompile the GPU kernels (needs nvcc)
	for cu in $(CU); do $(compile) > $${cu%.cu}.ptx || exit 1; done

kernels-check:
	for cu in $(CU); do $(compile) | diff - $${cu%.cu}.ptx || exit 1; \
	  for sm in $$targets; do ptxas -arch=$$sm -o /dev/null $${cu%.cu}.ptx || exit 1; done; done

clean:           ## remove what make made
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
