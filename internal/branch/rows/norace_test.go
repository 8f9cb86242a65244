//go:build !race

package rows_test

const slow = 1
