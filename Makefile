# Everything a person does with Evergreen on one machine. `make` alone lists it.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STACK := $(BIN)/python -m include.embedded

# The lock files are for Python 3.11, so nothing else will do; `python3` may well be it under another name.
FIND_PYTHON = for p in "$(PYTHON)" python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done
NO_PYTHON = Evergreen needs Python 3.11 and found none; install it, or name it: make $@ PYTHON=/path/to/python3.11

.DEFAULT_GOAL := help
.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ run: one machine, the whole stack
.PHONY: install up down status reset demo check-manifest

install: ## Create .venv and install the locked requirements (skipped when nothing changed)
	@python="$$($(FIND_PYTHON))"; \
	if [ -z "$$python" ]; then echo "$(NO_PYTHON)" >&2; exit 1; fi; \
	"$$python" -m include.embedded.install

up: install ## Start the whole stack and wait until it is healthy
	@$(STACK) up

down: ## Stop it; what is stored stays
	@if [ -x $(BIN)/python ]; then $(STACK) down; else echo "0 processes left"; fi

status: ## Show each program; exit 3 unless all are healthy
	@$(STACK) status

reset: ## Stop it and delete what was stored
	@$(STACK) reset

demo: install ## Show the whole loop at work
	@$(BIN)/python -m include.embedded.commands.demo

check-manifest: install ## Check include/pipeline.yaml (or EVERGREEN_MANIFEST): one line, or what is wrong
	@$(BIN)/python -m include.embedded.check_manifest

##@ data: what comes in, and what was recorded of it
.PHONY: contract feedback tidy-log lineage

contract: install ## Propose a contract section from SAMPLE=file (LABEL=column, OUT=file)
	@$(BIN)/python -m include.embedded.commands.propose_contract "$(SAMPLE)" --label "$(LABEL)" --out "$(OUT)"

feedback: install ## Outcomes of predictions from FILE (CSV or Parquet: request_id, label, row, time)
	@$(BIN)/python -m include.embedded.commands.feedback "$(FILE)"

tidy-log: install ## Join the small segments of past days in the prediction log; remove days past serving.log.keep_days
	@$(BIN)/python -m include.embedded.commands.tidy_log

lineage: install ## From a model version to its rows (MODEL=3), or from a row to its models (ROW=A20260801-0003)
	@$(BIN)/python -m include.embedded.commands.lineage --model "$(MODEL)" --row "$(ROW)"

##@ release: what serves, and why
.PHONY: rollback reconcile history

rollback: ## All traffic back to the last other version that served, or VERSION=3; WHY="..." goes to the ledger
	@$(BIN)/python -m include.embedded.commands.rollback --version "$(VERSION)" $(if $(WHY),--why "$(WHY)")

reconcile: install ## Whether registry, ledger and what serves agree; heals what it can, and says what it did
	@$(BIN)/python -m include.embedded.commands.reconcile

history: install ## Every release: who, what, why, by which evidence; and whether the record is untouched
	@$(BIN)/python -m include.embedded.commands.history

##@ watch: Prometheus beside the stack
.PHONY: prometheus

prometheus: install ## Write what a Prometheus beside the stack needs to know; prints the command that starts it
	@$(BIN)/python -m include.embedded.commands.prometheus

##@ prove: each claim once more, on this machine
.PHONY: prove-data prove-backfill prove-training prove-portable prove-gate prove-score prove-serving prove-serving-fuzz prove-release prove-canary prove-drift prove-retrain prove-told prove-images k8s-manifests test-k8s

prove-data: install ## The whole list of bad input, through the real ingest job against real servers
	@$(BIN)/python -W ignore -m tests.proofs.prove_data

prove-backfill: install ## Sixty days backfilled twice beside live runs, and a backtest: nothing that lives moves
	@$(BIN)/python -m tests.proofs.prove_backfill

prove-training: install ## Kill a training at its effects, retry it, and look whether it happened exactly once
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.proofs.prove_training

prove-portable: install ## Load every kind of model from MLflow without the project, in environments of its requirements
	@OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.proofs.prove_portable

prove-gate: install ## How often the gate is wrong, what it sees, and whether it finds known faults
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.proofs.prove_gate

prove-score: install ## Batch scoring in flat memory, killed anywhere and gone on with: the same bytes
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.proofs.prove_score

prove-serving: install ## What the model server promises when requests, models, disks and processes go wrong
	@$(BIN)/python -W ignore -m tests.proofs.prove_serving

prove-serving-fuzz: install ## Five thousand odd requests in every protocol to real model servers: no 5xx
	@$(BIN)/python -W ignore -m tests.proofs.prove_serving_fuzz

prove-release: install ## Releases under load, killed anywhere, and with everything around them failing
	@OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.proofs.prove_release

prove-canary: install ## How often the canary ends a healthy release, and how soon it ends a faulty one
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.proofs.prove_canary

prove-drift: install ## How often the monitor cries wolf, what it sees and how soon; the textbook and Evidently beside it
	@OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.proofs.prove_drift

prove-retrain: install ## A thousand drift events, eight deciders that are killed all the time: one retraining
	@$(BIN)/python -W ignore -m tests.proofs.prove_retrain

prove-told: install ## A week replayed: what people were told, in order, on one page (ARGS=--markdown: for the runbook)
	@$(BIN)/python -W ignore -m tests.proofs.prove_told $(ARGS)

prove-images: install ## Build the three images on a plain Debian and use them, confined (podman and debootstrap, as root)
	@OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.proofs.prove_images

k8s-manifests: install ## Render every overlay of k8s/ and check it: schemas, Pod Security, references, rights
	@$(BIN)/python -m tests.proofs.prove_k8s_manifests

test-k8s: install ## On the cluster of KUBECONFIG: contract suite, jobs as pods, releases under load, rights (ARGS="-k rights")
	@PYTHONPATH=.:plugins $(BIN)/python -W ignore -m tests.proofs.prove_k8s $(ARGS)

##@ bench: seconds and bytes, beside others
.PHONY: bench-serving bench-former bench-log bench-data bench-drift bench-parse bench-orchestration load

bench-serving: install ## The model server beside MLflow, BentoML, LitServe and FastAPI: same model, same core
	@$(BIN)/python -W ignore -m tests.benchmarks.bench_serving

bench-former: install ## The model server beside a checkout of a former version of itself (FORMER=folder)
	@$(BIN)/python -W ignore -m tests.benchmarks.bench_former $(FORMER)

bench-log: install ## What the prediction log costs the predictions beside it
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.bench_log

bench-data: install ## Seconds and memory of a day by its size, and the contract beside Great Expectations
	@$(BIN)/python -m tests.benchmarks.bench_data

bench-drift: install ## Drift of 20 columns, up to ten million rows, beside Evidently: time, memory, exactness
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.bench_drift

bench-parse: install ## Seconds each DAG file adds to Airflow's parsing
	@$(BIN)/python -m tests.benchmarks.bench_parse

bench-orchestration: install ## Seconds Airflow costs between two tasks (a stack of its own)
	@$(BIN)/python -m tests.benchmarks.bench_orchestration

load: install ## A hundred users of the model server for a minute (USERS, SECONDS, HOST; WEB=1: locust's page)
	@$(BIN)/python -W ignore -m locust -f tests/benchmarks/locustfile.py -u $(or $(USERS),100) -r 50 \
		-t $(or $(SECONDS),60)s $(if $(HOST),-H $(HOST)) \
		$(if $(WEB),--autostart --web-host 127.0.0.1,--headless --only-summary)

##@ develop: change the code
.PHONY: test test-unit test-e2e coverage lint format pre-commit lock findings
# The folders that take longest; all else is in test-unit, so the two together are `make test`.
E2E := tests/e2e tests/contract tests/cluster
PYTEST = $(BIN)/python -m pytest --durations=10 -n $(or $(WORKERS),2) --dist loadscope --no-loadscope-reorder

test: install ## Run all tests in two processes, one of them for all that start servers (WORKERS=1: in one)
	@$(PYTEST)

test-unit: install ## All but the long ones: some start a server, none a cluster, a bucket or the loop
	@$(PYTEST) tests $(E2E:%=--ignore=%)

test-e2e: install ## The long ones: the whole loop, both serving targets, sources and buckets
	@$(PYTEST) $(E2E)

coverage: install ## test-unit with lines and branches counted; fails below the floor in pyproject.toml
	@$(PYTEST) tests $(E2E:%=--ignore=%) --cov --cov-report=term

lint: install ## Style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=.:plugins $(BIN)/lint-imports

format: install ## Let ruff put right what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

pre-commit: install ## Have git ask for style, types and imports at each commit
	@$(BIN)/pre-commit install

lock: ## Resolve pyproject.toml into uv.lock and requirements.txt; UPGRADE=1 looks for newer versions
	@$(BIN)/uv lock $(if $(UPGRADE),--upgrade)
	@$(BIN)/uv export --quiet --frozen --no-annotate --output-file requirements.txt

findings: ## Surprises of the libraries around us, each seen again by a script of its own (needs a package index)
	@failed=0; for script in findings/*.sh; do echo "== $$script"; PYTHON="$$($(FIND_PYTHON))" bash "$$script" || failed=1; done; exit $$failed
