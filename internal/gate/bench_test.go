package gate_test

import (
	"testing"

	"github.com/persqld/persqld/internal/gate"
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
