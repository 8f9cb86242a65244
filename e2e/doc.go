// Package e2e holds the tests that run the real binary and talk to it over real HTTP, as a client does. They are the
// judge of docs/contract/data-plane.md: every fact there has an id, and every id a test here.
//
//	go test ./e2e                     everything, with a plain build
//	PERSQLD_RACE=1 go test ./e2e      the server built with the race detector (needs gcc)
//	TORTURE=500 go test -run Crash -timeout 0 ./e2e
//
// What a machine lacks (node, chromium) is named at the end of the run, and is a failure where CI is set.
package e2e
