//go:build race

package rows_test

// slow is how many times longer things may take with the race detector.
const slow = 10
