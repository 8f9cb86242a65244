package e2e_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

var factID = regexp.MustCompile(`\[(DP-[A-Z]+-[0-9]+)\]`)

func TestEveryFactHasATest(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "docs", "contract", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	facts := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range factID.FindAllStringSubmatch(string(text), -1) {
			if facts[m[1]] {
				t.Errorf("%s stands twice in the contract", m[1])
			}
			facts[m[1]] = true
		}
	}
	if len(facts) == 0 {
		t.Fatal("the contract has no facts")
	}
	tests := registered(t)
	for _, id := range slices.Sorted(maps.Keys(facts)) {
		if len(tests[id]) == 0 {
			t.Errorf("%s has no test", id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(tests)) {
		if !facts[id] {
			t.Errorf("%v: %s is not in the contract", tests[id], id)
		}
	}
}

// registered are the ids that calls of row in this package name, with the places of the calls.
func registered(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	set := token.NewFileSet()
	for _, name := range files {
		file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.Ident); !ok || f.Name != "row" || len(call.Args) == 0 {
				return true
			}
			for _, arg := range call.Args[1:] {
				at := set.Position(arg.Pos()).String()
				lit, ok := arg.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					t.Errorf("%s: row takes string literals", at)
					continue
				}
				id, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Errorf("%s: %v", at, err)
				}
				found[id] = append(found[id], at)
			}
			return true
		})
	}
	return found
}
