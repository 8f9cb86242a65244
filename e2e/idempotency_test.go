package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

func key(k string) harness.Header { return harness.Header("Idempotency-Key: " + k) }

func replayed(a *harness.Answer) bool { return a.Header.Get("Idempotency-Replayed") == "true" }

// ledger is a database with a table that tells how often something ran.
func ledger(t testing.TB) *harness.DB {
	t.Helper()
	d := db(t)
	d.Must("CREATE TABLE t(a)")
	return d
}

func count(t testing.TB, d *harness.DB, want int) {
	t.Helper()
	if got := d.One("SELECT count(*) FROM t"); got != fmt.Sprint(want) {
		t.Errorf("%s rows, want %d", got, want)
	}
}

func TestIdempotencyKey(t *testing.T) {
	row(t, "DP-I-1", "DP-I-3")
	d := ledger(t)
	insert := harness.Body("INSERT INTO t VALUES(1) RETURNING a, rowid")
	first := d.Post(d.Path("query"), insert, key("k1")).OK()
	if replayed(first) {
		t.Error("the first call says it was replayed")
	}
	for range 3 {
		again := d.Post(d.Path("query"), insert, key("k1")).OK()
		if !replayed(again) {
			t.Error("a replay doesn't say so")
		}
		if got, want := harness.Text(again.At("data")), harness.Text(first.At("data")); got != want {
			t.Errorf("replayed %s, first was %s", got, want)
		}
	}
	count(t, d, 1)
	d.Post(d.Path("query"), harness.Body("INSERT INTO t VALUES(2)"), key("k1")).Fails(http.StatusConflict, "idempotency_key_reused")
	d.Post(d.Path("query"), harness.Body("INSERT INTO t VALUES(?)", 1), key("k1")).Fails(http.StatusConflict, "idempotency_key_reused")
	d.Post(d.Path("batch"), harness.BatchBody(true, "INSERT INTO t VALUES(2)"), key("k1")).Fails(http.StatusConflict, "idempotency_key_reused")
	count(t, d, 1)
	d.Post(d.Path("query"), insert, key("k2")).OK()
	d.Post(d.Path("query"), insert).OK()
	count(t, d, 3)

	d.Post(d.Path("query"), insert, key(strings.Repeat("k", 200))).OK()
	d.Post(d.Path("query"), insert, key(strings.Repeat("k", 201))).Fails(http.StatusBadRequest, "").Tells("200")
	d.Post(d.Path("query"), insert, key(strings.Repeat("k", 5000))).Fails(http.StatusBadRequest, "").Tells("200")
	count(t, d, 4)

	batch := harness.BatchBody(true, "INSERT INTO t VALUES(5)", "INSERT INTO t VALUES(6)", "SELECT count(*) FROM t")
	one := d.Post(d.Path("batch"), batch, key("b1")).OK()
	two := d.Post(d.Path("batch"), batch, key("b1")).OK()
	if !replayed(two) || harness.Text(one.At("data")) != harness.Text(two.At("data")) {
		t.Errorf("the batch was replayed as %s, first was %s", two.Raw, one.Raw)
	}
	count(t, d, 6)
	d.Post(d.Path("query"), harness.Body("CREATE TABLE made(a)"), key("ddl")).OK()
	if !replayed(d.Post(d.Path("query"), harness.Body("CREATE TABLE made(a)"), key("ddl")).OK()) {
		t.Error("DDL was not replayed")
	}
}

func TestFailuresAreNotKept(t *testing.T) {
	row(t, "DP-I-4")
	d := ledger(t)
	late := harness.Body("INSERT INTO late VALUES(1)")
	d.Post(d.Path("query"), late, key("k")).Fails(http.StatusBadRequest, "").Kind("unknown_table")
	d.Must("CREATE TABLE late(a)")
	if replayed(d.Post(d.Path("query"), late, key("k")).OK()) {
		t.Error("a failure was replayed")
	}
	if got := d.One("SELECT count(*) FROM late"); got != "1" {
		t.Errorf("%s rows", got)
	}
	batch := harness.BatchBody(true, "INSERT INTO t VALUES(1)", "INSERT INTO later VALUES(1)")
	d.Post(d.Path("batch"), batch, key("b")).Fails(http.StatusBadRequest, "")
	d.Must("CREATE TABLE later(a)")
	d.Post(d.Path("batch"), batch, key("b")).OK()
	count(t, d, 1)
}

func TestPartialFailureIsKept(t *testing.T) {
	row(t, "DP-I-5")
	d := ledger(t)
	batch := harness.BatchBody(false, "INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(2)", "INSERT INTO later VALUES(1)", "INSERT INTO t VALUES(3)")
	check := func(a *harness.Answer) {
		t.Helper()
		a.Fails(http.StatusBadRequest, "").Kind("unknown_table").Is("errorDetail.statementIndex", "2").Is("completed.1.changes", "1")
		if got := len(a.List("completed")); got != 2 {
			t.Errorf("%d completed: %s", got, a.Raw)
		}
	}
	first := d.Post(d.Path("batch"), batch, key("k"))
	check(first)
	count(t, d, 2)
	d.Must("CREATE TABLE later(a)")
	again := d.Post(d.Path("batch"), batch, key("k"))
	check(again)
	if !replayed(again) || replayed(first) {
		t.Error("the partial failure was not replayed")
	}
	count(t, d, 2)
	d.Post(d.Path("batch"), harness.BatchBody(false, "INSERT INTO t VALUES(9)"), key("k")).Fails(http.StatusConflict, "idempotency_key_reused")
	d.Post(d.Path("batch"), harness.BatchBody(false, "INSERT INTO t VALUES(9)", "SELECT 1"), key("whole")).OK()
	if !replayed(d.Post(d.Path("batch"), harness.BatchBody(false, "INSERT INTO t VALUES(9)", "SELECT 1"), key("whole")).OK()) {
		t.Error("a batch without transaction was not replayed")
	}
	count(t, d, 3)
}

func TestReadsIgnoreTheKey(t *testing.T) {
	row(t, "DP-I-6")
	d := ledger(t)
	for want := range 3 {
		a := d.Post(d.Path("query"), harness.Body("SELECT count(*) FROM t"), key("k")).OK().Is("data.rows.0.0", fmt.Sprint(want))
		b := d.Post(d.Path("batch"), harness.BatchBody(false, "SELECT count(*) FROM t"), key("k")).OK().Is("data.0.rows.0.0", fmt.Sprint(want))
		if replayed(a) || replayed(b) {
			t.Error("a read was replayed")
		}
		d.Must("INSERT INTO t VALUES(1)")
	}
	d.Post(d.Path("query"), harness.Body("INSERT INTO t VALUES(1)"), key("k")).OK()
	count(t, d, 4)
}

func TestKeyedAnswerTooLarge(t *testing.T) {
	row(t, "DP-I-7")
	d := ledger(t)
	large := harness.Body("INSERT INTO t VALUES(1) RETURNING hex(zeroblob(600000))")
	d.Post(d.Path("query"), large, key("k")).Fails(http.StatusRequestEntityTooLarge, "")
	count(t, d, 0)
	d.Post(d.Path("batch"), harness.BatchBody(false, "INSERT INTO t VALUES(1)", large), key("b")).Fails(http.StatusRequestEntityTooLarge, "")
	d.Post(d.Path("batch"), harness.BatchBody(true, "INSERT INTO t VALUES(1)", large), key("c")).Fails(http.StatusRequestEntityTooLarge, "")
	count(t, d, 0)
	d.Post(d.Path("query"), large).OK()
	count(t, d, 1)
	d.Post(d.Path("query"), harness.Body("INSERT INTO t VALUES(1)"), key("k")).OK() // the key is free
	count(t, d, 2)
}

func TestWhoseKey(t *testing.T) {
	row(t, "DP-I-8")
	d, e := ledger(t), ledger(t)
	insert := harness.Body("INSERT INTO t VALUES(1)")
	d.Post(d.Path("query"), insert, key("k")).OK()
	if replayed(e.Post(e.Path("query"), insert, key("k")).OK()) {
		t.Error("another database's answer was replayed")
	}
	_, token := newToken(t, sharedServer(t), "--namespace", "default")
	if replayed(d.As(token).Post(d.Path("query"), insert, key("k")).OK()) {
		t.Error("another token's answer was replayed")
	}
	count(t, d, 2)
	count(t, e, 1)
	d.As(token).Post(d.Path("query"), harness.Body("INSERT INTO t VALUES(2)"), key("k")).Fails(http.StatusConflict, "idempotency_key_reused")
}

func TestPlanKey(t *testing.T) {
	row(t, "DP-I-9")
	d := ledger(t)
	step := func(plan, n string) *harness.Answer {
		return d.Post(d.Path("query"), harness.Body("INSERT INTO t VALUES(?)", plan+n), harness.Header("Plan-Key: "+plan), harness.Header("Plan-Step: "+n)).OK()
	}
	for round, want := range []string{"", "true", "true"} {
		for _, s := range [][2]string{{"p", "1"}, {"p", "2"}, {"q", "1"}, {"p1", "1"}, {"p", "11"}} {
			a := step(s[0], s[1])
			if got := a.Header.Get("Plan-Replayed"); got != want {
				t.Errorf("round %d: Plan-Replayed %q, want %q", round, got, want)
			}
			if a.Header.Get("Idempotency-Replayed") != "" {
				t.Error("a plan's answer says Idempotency-Replayed")
			}
		}
	}
	count(t, d, 5)
	d.Post(d.Path("query"), harness.Body("INSERT INTO t VALUES('other')"), "Plan-Key: p", "Plan-Step: 1").Fails(http.StatusConflict, "")
	count(t, d, 5)
}

func TestRacingKeysRunOnce(t *testing.T) {
	row(t, "DP-I-2")
	d := ledger(t)
	for i := range 200 {
		insert := harness.Body("INSERT INTO t VALUES(?) RETURNING rowid", i)
		var ran, repeats atomic.Int32
		var data [2]string
		parallel(t, 2, func(worker int) {
			a, err := d.Try(http.MethodPost, d.Path("query"), insert, key(fmt.Sprint("race-", i)))
			if err != nil || a.Status != http.StatusOK {
				t.Errorf("call %d.%d failed: %v", i, worker, err)
				return
			}
			data[worker] = harness.Text(a.At("data.rows"))
			if replayed(a) {
				repeats.Add(1)
			} else {
				ran.Add(1)
			}
		})
		if ran.Load() != 1 || repeats.Load() != 1 || data[0] != data[1] {
			t.Fatalf("round %d: %d ran, %d replayed, %v", i, ran.Load(), repeats.Load(), data)
		}
	}
	count(t, d, 200)
	rowsAre(t, d.Query("SELECT count(DISTINCT a) FROM t"), "[[200]]")
}
