# The tests in two lanes at once, which is what `make test` runs when it is not told which: most of their time they wait.
# What is in no list here is in the second lane, so no folder is forgotten. Those that need the machine to themselves are
# run before, by whoever runs this.

FOLDERS := $(filter-out tests/integration tests/__pycache__,$(patsubst %/,%,$(wildcard tests/*/ tests/integration/*/)))
ALONE := tests/chaos tests/load
FIRST := tests/e2e tests/integration/cli tests/integration/dispatcher tests/integration/inbox
SECOND := $(filter-out $(ALONE) $(FIRST) tests/integration/__pycache__,$(FOLDERS))

.PHONY: alone lanes first second

alone:
	.venv/bin/pytest $(ALONE)

lanes: first second

first:
	.venv/bin/pytest $(FIRST)

second:
	.venv/bin/pytest $(SECOND)
