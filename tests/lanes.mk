# The tests in three lanes at once, which is what `make test` runs when it is not told which: much of their time they wait.
# What is in no list here is in the third lane, so no folder is forgotten. Those that need the machine to themselves are
# run before, by whoever runs this.

FOLDERS := $(filter-out tests/integration tests/__pycache__,$(patsubst %/,%,$(wildcard tests/*/ tests/integration/*/)))
ALONE := tests/chaos tests/load
FIRST := tests/e2e tests/integration/client tests/integration/shared tests/integration/stack
SECOND := tests/integration/cli tests/integration/dispatcher tests/integration/inbox tests/integration/preferences
THIRD := $(filter-out $(ALONE) $(FIRST) $(SECOND) tests/integration/__pycache__,$(FOLDERS))

.PHONY: alone lanes first second third

alone:
	.venv/bin/pytest $(ALONE) --durations=10

lanes: first second third

first:
	.venv/bin/pytest $(FIRST) --durations=10

second:
	.venv/bin/pytest $(SECOND) --durations=10

# Whoever runs this has been through the house's own tests already: `make verify` ends with them.
third:
	.venv/bin/pytest $(THIRD) --ignore=tests/unit/house --durations=10
