package main

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// library is the module as it is.
var library = sync.OnceValues(func() (*source, error) {
	dir, err := goList(module)
	if err != nil {
		return nil, err
	}
	return readModule(dir)
})

// stock is a copy of the module's text, to be changed.
func stock(t *testing.T) *source {
	t.Helper()
	s, err := library()
	if err != nil {
		t.Fatal(err)
	}
	return &source{files: maps.Clone(s.files), lib: s.lib}
}

// declarationOf is the anchor's declaration for a target, and its file.
func (s *source) declarationOf(t *testing.T, on target, a anchor) (decl, file string) {
	t.Helper()
	file, err := s.holder(on, a)
	if err != nil {
		t.Fatal(err)
	}
	text := s.files[file]
	text = text[declaration(text, a.in):]
	return text[:strings.Index(text, "\n}\n")+3], file
}

// An anchor that isn't there exactly once stops the program with its name, on every target.
func TestAnchorsMatch(t *testing.T) {
	s := stock(t)
	for _, a := range append(slices.Clone(anchors), watch) {
		piece := strings.Replace(a.find, "¦", "", 1)
		for _, on := range targets {
			decl, _ := s.declarationOf(t, on, a)
			patched, err := a.apply(decl)
			if err != nil {
				t.Errorf("%s: %v", on, err)
				continue
			}
			if a.put != "" && strings.Count(patched, a.put) != strings.Count(decl, a.put)+1 {
				t.Errorf("%s: %s is not put in once", on, a.name)
			}
			if strings.Count(patched, "\n") != strings.Count(decl, "\n") {
				t.Errorf("%s: %s moves lines", on, a.name)
			}
			for _, damaged := range []string{strings.Replace(decl, piece, "", 1), decl + piece} {
				if _, err := a.apply(damaged); !errors.Is(err, errAnchor) || !strings.Contains(err.Error(), `"`+a.name+`"`) {
					t.Errorf("%s: without its one piece %s says %v", on, a.name, err)
				}
			}
		}
	}
}

// The message names the file and the target too, and nothing is made.
func TestOtherLibrary(t *testing.T) {
	for _, on := range targets {
		s := stock(t)
		_, file := s.declarationOf(t, on, anchors[0])
		s.files[file] = strings.ReplaceAll(s.files[file], "OP_NotExists):", "OP_NotExits):")
		err := s.addMeter(false)
		if !errors.Is(err, errAnchor) || !strings.Contains(err.Error(), `"NotExists"`) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", on, err)
		}

		s = stock(t)
		s.files[file] = strings.Replace(s.files[file], "\n"+machine, "\nfunc _renamed(", 1)
		if err := s.addMeter(false); !errors.Is(err, errAnchor) || !strings.Contains(err.Error(), on.os) {
			t.Errorf("%s: without the function: %v", on, err)
		}
	}
}

// What each target's compiler would see is Go. Only what was changed is looked into: the rest is the library's.
func TestPatchedCodeCompiles(t *testing.T) {
	fset := token.NewFileSet()
	parsed := make(map[string]*ast.File)
	for _, proof := range []bool{false, true} {
		before, s := stock(t), stock(t)
		if err := s.addMeter(proof); err != nil {
			t.Fatal(err)
		}
		for _, on := range targets {
			var files []*ast.File
			changed := 0
			for _, name := range slices.Compact(slices.Sorted(slices.Values(s.lib[on]))) {
				text := s.files[name]
				f := parsed[text]
				if f == nil {
					var err error
					if f, err = parser.ParseFile(fset, name, text, parser.SkipObjectResolution); err != nil {
						t.Fatal(err)
					}
					for _, d := range f.Decls {
						if fn, ok := d.(*ast.FuncDecl); ok && !ours(name, fn.Name.Name) {
							fn.Body = &ast.BlockStmt{Lbrace: fn.Pos(), List: []ast.Stmt{&ast.ForStmt{Body: &ast.BlockStmt{}}}}
						}
					}
					parsed[text] = f
				}
				if text != before.files[name] {
					changed++
				}
				files = append(files, f)
			}
			if want := 3; changed < want {
				t.Errorf("%s: %d files were changed or added, want %d at least", on, changed, want)
			}
			var errs []error
			conf := types.Config{Importer: nobody{}, Sizes: types.SizesFor("gc", on.arch), Error: func(err error) {
				if !strings.Contains(err.Error(), "could not import") && !strings.Contains(err.Error(), "imported and not used") {
					errs = append(errs, err)
				}
			}}
			pkg, _ := conf.Check(module+"/lib", fset, files, nil)
			if len(errs) > 0 {
				t.Errorf("%s, proof %v: %v", on, proof, errs[0])
			}
			if pkg.Scope().Lookup("MeterOf") == nil {
				t.Errorf("%s: MeterOf is missing", on)
			}
		}
	}
}

// ours tells whether the function of that name has something of ours in it, or is ours.
func ours(file, name string) bool {
	return strings.Contains(file, "rowmeter_") || slices.ContainsFunc(anchors, func(a anchor) bool { return a.in == "func "+name+"(" })
}

// nobody imports nothing: what comes from other packages has any type.
type nobody struct{}

func (nobody) Import(string) (*types.Package, error) { return nil, errors.New("not here") }

// Programs that make the copy at the same time all get the one that one of them made, and those that come later leave
// it as it is.
func TestAtOnce(t *testing.T) {
	root := module4test(t)
	var wg sync.WaitGroup
	results := make([]string, 3)
	for i := range results {
		wg.Go(func() {
			flags, err := prepare(root, false)
			if err != nil {
				t.Error(err)
			}
			results[i] = flags
		})
	}
	wg.Wait()
	if results[0] == "" || results[1] != results[0] || results[2] != results[0] {
		t.Fatalf("flags: %q", results)
	}
	cache := filepath.Join(root, ".cache", "rowmeter")
	entries, err := os.ReadDir(cache)
	if err != nil || len(entries) != 1 {
		t.Fatalf("in %s: %v, %v", cache, entries, err)
	}
	file := filepath.Join(cache, entries[0].Name(), "go.mod")
	was, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := prepare(root, false); err != nil || again != results[0] {
		t.Errorf("later: %q, %v", again, err)
	}
	if is, err := os.Stat(file); err != nil || !os.SameFile(was, is) {
		t.Errorf("the copy was made twice: %v", err)
	}
	b, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(b), "\nreplace "+module+" => ./.cache/rowmeter/"+entries[0].Name()+"/sqlite\n") {
		t.Errorf("go.mod: %s %v", b, err)
	}
	if !strings.Contains(results[0], file) || !strings.HasSuffix(results[0], " -tags=rowmeter") {
		t.Errorf("flags: %s", results[0])
	}
}

// module4test is a folder with this module's go.mod and go.sum.
func module4test(t *testing.T) string {
	t.Helper()
	own, err := goList("")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(own, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(root, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// All that a copy depends on is in its name.
func TestFingerprint(t *testing.T) {
	seen := make(map[string]bool)
	for _, in := range []struct {
		gomod, gosum string
		proof        bool
	}{{"a", "b", false}, {"a", "b", true}, {"ab", "", false}, {"a", "c", false}} {
		name, err := fingerprint([]byte(in.gomod), []byte(in.gosum), in.proof)
		if err != nil {
			t.Fatal(err)
		}
		if seen[name] {
			t.Errorf("%+v has the name of another", in)
		}
		seen[name] = true
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"-a=/b": "-a=/b", "-a=/b c": "'-a=/b c'", "-a=/it's": `"-a=/it's"`} {
		if got := quote(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
