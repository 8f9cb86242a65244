# make run and make test are all that one needs to know. Go alone is enough for everything but parts of make test,
# which then says what it left out.

GO      ?= go
ARGS    ?=
FUZZTIME ?= 10m
N       ?= 200
DOCKER  ?= docker
IMAGE   ?= persqld

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0

# The version is Git's: Go writes it into the binary where Git can tell.
VCS = $(shell git rev-parse HEAD >/dev/null 2>&1 && echo auto || echo false)

# Go's flags for the exact row meter, which internal/sqlite/rowmeter builds into a copy of SQLite. Whatever Go programs a recipe
# starts inherit them. With METER= the build is Go's plain one, and the meter estimates.
METER = $(strip $(GOFLAGS) $(or $(shell GOFLAGS= GOOS= GOARCH= $(GO) run ./internal/sqlite/rowmeter),$(error the exact row meter can't be built in, see above)))

# SQLite's generated code does arithmetic on addresses that the checks of -race refuse, and is one thread's work.
RACE = -race -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc=-race=false

# What runs once more against a server that has the race detector.
CONCURRENT = Crash|Racing|UnderLoad|AtOnce|Restart|Termination|QueueFull|StatementTimeout|FeedUnderFire

# Tests that walk through many states of something, one after the other: under the race detector they take four times as long, and what little runs beside something else
# in them does so in other tests of their packages, too. They run without it, all others with it; and so do those of the store, where nearly everything runs beside something.
WALKS = PowerLoss|MissingSync|EveryByte|EveryMoment|EveryPosition|Damage|Finding|Equals|Random|Property|IsExact|AreExact|IsValid|SameMeaning|Hostile|Unicode|Streams|MergeKeeps|MergeMakes|MergeCosts|TidyForgets|PruneTo|HoldsTheBound|RowMeters|PatchedCode

TESTFLAGS = -count=1 -timeout 30m

.PHONY: run build image test bench lint fuzz torture

## run: build and start the server, with nothing to configure. ARGS are flags of persqld serve.
run: build
	@exec bin/persqld serve $(ARGS)

## build: make bin/persqld, one static binary.
build:
	GOFLAGS="$(METER)" CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=$(VCS) -o bin/persqld ./cmd/persqld

## image: build the container image. IMAGE is its name (persqld), DOCKER the program that builds it.
image:
	$(DOCKER) build -t $(IMAGE) .

## test: vet, then every test, the end-to-end suite and the fuzz corpora included. CI=1 makes a skipped test a failure.
test:
	@scripts/test-setup
	GOFLAGS="$(METER)" $(GO) vet ./...
	@export GOFLAGS="$(METER)"; test="$(GO) run ./internal/tools/testsummary"; \
	if command -v gcc >/dev/null; then \
		export CGO_ENABLED=1; packages=$$($(GO) list ./... | grep -v -e '/e2e$$' -e '/internal/store$$'); \
		exec $$test -p 1 $(RACE) $(TESTFLAGS) -skip '$(WALKS)' $$packages ++ $(TESTFLAGS) ./e2e \
			-- $(RACE) $(TESTFLAGS) ./internal/store ++ -p 1 $(TESTFLAGS) -run '$(WALKS)' $$packages \
			-- PERSQLD_RACE=1 $(TESTFLAGS) -run '$(CONCURRENT)' ./e2e; \
	else \
		echo; echo "NOT TESTED: nothing runs under the race detector, which needs gcc, and gcc is missing."; echo; \
		exec $$test $(TESTFLAGS) ./...; \
	fi

## bench: measure the server beside its floor; fails where a bar is missed. About 18 minutes.
bench:
	GOFLAGS="$(METER)" $(GO) run ./bench $(ARGS)

## lint: gofmt, vet, staticcheck, govulncheck.
lint:
	@GO="$(GO)" METER="$(METER)" STATICCHECK="$(STATICCHECK)" GOVULNCHECK="$(GOVULNCHECK)" scripts/lint

## fuzz: every fuzz target for FUZZTIME each (10m).
fuzz:
	@GOFLAGS="$(METER)" GO="$(GO)" scripts/fuzz $(FUZZTIME)

## torture: kill the server with -9 under load N times (200), and look for what was lost.
torture:
	GOFLAGS="$(METER)" TORTURE=$(N) $(GO) test -count=1 -timeout 0 -v -run '^TestCrash$$' ./e2e
