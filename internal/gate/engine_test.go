package gate

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
)

// TestEveryName fails when an upgrade of the engine brings a function, a module or a pragma that nobody has decided on. SQLite's
// list of modules tells of table-valued pragmas only those that were used: TestEveryPragma tries them all.
func TestEveryName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	if err := os.WriteFile(path, sqlite.EmptyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.Open(sqlite.Config{Path: path}, th)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	made := map[string]bool{"json_each": true, "json_tree": true} // need no CREATE, and may be read
	for m := range modules {
		made[m] = true
	}
	for list, tt := range map[string]struct {
		decided func(name string) bool
		least   int
	}{
		"function_list": {func(name string) bool { return functions[name] != (refusedFunctions[name] != "") }, 160},
		"module_list": {func(name string) bool {
			return made[name] != (refusedModules[name] != "") || strings.HasPrefix(name, "pragma_")
		}, 6},
		"pragma_list": {func(name string) bool {
			_, allowed := pragmas[name]
			return allowed != otherPragmas[name]
		}, 60},
	} {
		n := 0
		err := c.EachRow("SELECT DISTINCT lower(name) FROM pragma_"+list, func(s *sqlite.Stmt) error {
			n++
			if name := string(s.Column(0).Bytes); !tt.decided(name) {
				t.Errorf("%s: decide on %s", list, name)
			}
			return nil
		})
		if err != nil || n < tt.least {
			t.Errorf("%s: %d names, %v", list, n, err)
		}
	}
}

// TestEveryAction asks about each of the authorizer's codes, and about codes that SQLite doesn't have: refused is what is not
// decided on here.
func TestEveryAction(t *testing.T) {
	decided := map[sqlite.Action]string{
		sqlite.Select: "", sqlite.Recursive: "", sqlite.Read: "", sqlite.Insert: "", sqlite.Update: "", sqlite.Delete: "", sqlite.Function: CodeFunction,
		sqlite.CreateTable: "", sqlite.CreateView: "", sqlite.CreateTrigger: "", sqlite.CreateIndex: "", sqlite.DropTable: "", sqlite.DropView: "",
		sqlite.DropTrigger: "", sqlite.DropIndex: "", sqlite.DropVTable: "", sqlite.CreateVTable: CodeModule, sqlite.AlterTable: "", sqlite.Analyze: "", sqlite.Reindex: "",
		sqlite.Pragma: CodePragma, sqlite.Transaction: CodeTransaction, sqlite.Savepoint: CodeTransaction, sqlite.Attach: CodeAttach, sqlite.Detach: CodeAttach,
		sqlite.CreateTempIndex: CodeTemp, sqlite.CreateTempTable: CodeTemp, sqlite.CreateTempTrigger: CodeTemp, sqlite.CreateTempView: CodeTemp,
		sqlite.DropTempIndex: CodeTemp, sqlite.DropTempTable: CodeTemp, sqlite.DropTempTrigger: CodeTemp, sqlite.DropTempView: CodeTemp,
	}
	g := &Gate{Caller: Caller{Role: RoleAdmin}}
	for code := range 256 {
		want, known := decided[sqlite.Action(code)]
		if !known {
			want = CodeNotAllowed
		}
		got := ""
		var r *Refusal
		if err := g.Permit(sqlite.Access{Action: sqlite.Action(code), Name: "x", Detail: "y", Schema: "main"}); errors.As(err, &r) {
			got = r.Code
		} else if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("action %d: got %q, want %q", code, got, want)
		}
	}
	// SQLite has the codes 1 to 33; 0 was COPY.
	if len(decided) != 33 {
		t.Errorf("%d actions decided on", len(decided))
	}
}
