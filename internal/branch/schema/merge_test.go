package schema_test

import (
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/branch/schema"
)

// trial is a merge of what parent and branch did to a schema.
type trial struct {
	name           string
	base           string // on both sides
	rows           string // on the parent
	parent, branch string

	added, changed, removed string   // "table t, view v"
	statements              []string // all of them, where given
	has                     []string // parts of some
	conflicts               []string // "table t: part of the reason"
	warnings                []string // parts; no more than these
	rebuilt, check          string
	ask, answer             string // a query on the merged parent
	fails                   string // part of the error of carrying it out
	special                 bool   // the reference doesn't know of columns that are merged and of renaming
	broken                  bool   // foreign keys are violated or mismatched, as they were
}

func TestMerge(t *testing.T) {
	names := map[string]bool{}
	for _, list := range [][]trial{tableTrials, rebuildTrials, objectTrials, renameTrials, virtualTrials, nameTrials} {
		for _, c := range list {
			if names[c.name] {
				t.Errorf("two trials are named %q", c.name)
			}
			names[c.name] = true
			t.Run(c.name, func(t *testing.T) { c.run(t) })
		}
	}
	if len(names) < 60 {
		t.Errorf("%d trials", len(names))
	}
}

func (c *trial) run(t *testing.T) {
	parent, branch, hand := openFile(t), openMemory(t), openMemory(t)
	c.base += "\n;"
	parent.must(c.base)
	base := parent.objects()
	parent.must(c.rows)
	parent.must(c.parent)
	branch.must(c.base + c.branch)
	p, h := parent.objects(), branch.objects()
	plan := merge(t, base, p, h)
	for _, x := range []struct{ what, got, want string }{
		{"added", names(plan.Added), c.added}, {"changed", names(plan.Changed), c.changed}, {"removed", names(plan.Removed), c.removed},
		{"rebuilt", strings.Join(plan.Rebuilt, ", "), c.rebuilt}, {"check", strings.Join(plan.Check, ", "), c.check},
	} {
		if x.got != x.want {
			t.Errorf("%s: %q, want %q", x.what, x.got, x.want)
		}
	}
	if len(plan.Warnings) != len(c.warnings) {
		t.Errorf("warnings: %q", plan.Warnings)
	}
	for _, w := range c.warnings {
		if !strings.Contains(strings.Join(plan.Warnings, "\n"), w) {
			t.Errorf("no warning %q in %q", w, plan.Warnings)
		}
	}
	if len(plan.Conflicts) != len(c.conflicts) {
		t.Errorf("conflicts: %+v", plan.Conflicts)
	}
	for _, want := range c.conflicts {
		what, why, _ := strings.Cut(want, ": ")
		found := false
		for _, x := range plan.Conflicts {
			found = found || x.Type+" "+x.Name == what && strings.Contains(x.Reason, why)
		}
		if !found {
			t.Errorf("no conflict %q in %+v", want, plan.Conflicts)
		}
	}
	if len(c.conflicts) > 0 {
		if len(plan.Statements) > 0 {
			t.Errorf("conflicts, and statements: %q", plan.Statements)
		}
		return
	}
	all := strings.Join(plan.Statements, "\n")
	if c.statements != nil && all != strings.Join(c.statements, "\n") {
		t.Errorf("statements:\n%s\nwant:\n%s", all, strings.Join(c.statements, "\n"))
	}
	for _, part := range c.has {
		if !strings.Contains(all, part) {
			t.Errorf("no statement %q in\n%s", part, all)
		}
	}
	if c.fails != "" {
		was := parent.texts()
		if err := parent.run(plan); err == nil || !strings.Contains(err.Error(), c.fails) {
			t.Errorf("carried out: %v", err)
		}
		if got := parent.texts(); got != was {
			t.Errorf("failing changed the schema to %s", got)
		}
		parent.healthy()
		return
	}
	hand.must(c.base + c.parent)
	for _, sql := range plan.Statements {
		if err := hand.exec(sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := parent.run(plan); err != nil {
		t.Fatalf("%v\nof\n%s", err, all)
	}
	if a, b := parent.texts(), hand.texts(); a != b && c.rows == "" {
		t.Errorf("by hand the schema is another one:\n%s\n%s", a, b)
	}
	if !c.broken {
		parent.healthy()
	}
	after := parent.objects()
	if !c.special {
		sameSchema(t, byKey(after), reference(base, p, h))
	}
	if c.ask != "" {
		if got := parent.rows(c.ask); got != c.answer {
			t.Errorf("%s: %q, want %q", c.ask, got, c.answer)
		}
	}
	if again := merge(t, h, after, h); !again.Empty() || len(again.Added)+len(again.Changed)+len(again.Removed)+len(again.Warnings) > 0 {
		t.Errorf("merged once more: %+v", again)
	}
	if again := merge(t, base, after, h); !again.Empty() && !c.special {
		t.Errorf("merged once more without a new base: %+v", again)
	}
	if none := merge(t, base, after, base); !none.Empty() {
		t.Errorf("merging a branch that changed nothing: %+v", none)
	}
}

func sameSchema(t *testing.T, got, want map[string]schema.Object) {
	t.Helper()
	for k, o := range want {
		g, ok := got[k]
		if !ok {
			t.Errorf("%s is missing", k)
		} else if !schema.Same(&g, &o) {
			t.Errorf("%s is\n%s\nwant\n%s", k, g.SQL, o.SQL)
		}
	}
	for k, o := range got {
		if _, ok := want[k]; !ok {
			t.Errorf("%s is too many: %s", k, o.SQL)
		}
	}
}
