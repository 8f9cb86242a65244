package store_test

import (
	"testing"

	"github.com/persqld/persqld/internal/store"
)

func TestRestartKeepsEverything(t *testing.T) {
	h := newHouse(t, store.Options{}, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(2)")
	h.restart()
	if got := h.rows("SELECT a FROM t"); got != "1 2" {
		t.Errorf("rows %s, want 1 2", got)
	}
}
