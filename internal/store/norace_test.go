//go:build !race

package store_test

import "time"

// raceSlack is what the race detector may cost a time limit.
const raceSlack time.Duration = 0
