package gate_test

import (
	"fmt"
	"testing"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/sqlite"
)

type scope map[string]bool

func (s scope) Has(table string) bool { return s[table] }

// BenchmarkWarm is what the gate adds to a statement out of the cache: it is asked about each access, and judges.
func BenchmarkWarm(b *testing.B) {
	c := open(b)
	for name, caller := range map[string]gate.Caller{"admin": {Role: gate.RoleAdmin}, "readonly": {Role: "readonly"}, "scoped": {Role: "read", Scope: scope{"t": true}}} {
		b.Run(name, func(b *testing.B) {
			g := &gate.Gate{Caller: caller}
			s, _, err := c.Prepare([]byte("SELECT id, a FROM t WHERE id = ?"), g.Permit)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Done()
			b.ReportAllocs()
			for b.Loop() {
				for i := range s.Accesses {
					if err := g.Permit(s.Accesses[i]); err != nil {
						b.Fatal(err)
					}
				}
				if err := g.Judge(s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRules is what 50 approval rules add to a warm write: the judgement out of the Memo, and the count of its row.
func BenchmarkRules(b *testing.B) {
	c := open(b)
	var all []*approval.Rule
	for i := range 50 {
		r := &approval.Rule{ID: fmt.Sprint(i), TableGlob: fmt.Sprintf("prod_%d_*", i), Action: approval.RequireApproval, MaxRows: approval.NoMaxRows}
		if err := r.Check(); err != nil {
			b.Fatal(err)
		}
		all = append(all, r)
	}
	if err := c.Exec("BEGIN"); err != nil { // or the disk is what is measured
		b.Fatal(err)
	}
	for name, rules := range map[string]*approval.Rules{"none": nil, "50": approval.NewRules(all)} {
		b.Run(name, func(b *testing.B) {
			g := &gate.Gate{Caller: gate.Caller{Role: gate.RoleAdmin}, Rules: rules}
			c.SetChangeHook(nil)
			if g.Watches() {
				c.SetChangeHook([]sqlite.ChangeHook{g.Changing})
			}
			s, _, err := c.Prepare([]byte("UPDATE t SET a = a WHERE id = 1"), g.Permit)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Done()
			b.ReportAllocs()
			for b.Loop() {
				g.Watches()
				if err := g.Judge(s); err != nil {
					b.Fatal(err)
				}
				g.Begin()
				if _, err := s.Step(); err != nil {
					b.Fatal(err)
				}
				s.Reset()
				if err := g.Changed(s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
