// Command rowmeter builds the exact row meter in: it makes a copy of the module of SQLite that go.mod names, with two
// counters in SQLite's virtual machine, and prints the flags that make Go build with it:
//
//	GOFLAGS="$(go run ./internal/sqlite/rowmeter)" go build ./cmd/persqld
//
// The copy lies in .cache/rowmeter of this module, in a folder named by all that it depends on, and is made once. Only
// what a build for linux and darwin on amd64 and arm64 needs is copied. Each piece of code that something is added to
// must be there exactly as often as expected, for each of the four, else nothing is made.
//
// With -proof the copy is one that the tests prove the meter by: each addition can be switched off while it runs, and
// each opcode that runs can be watched.
//
// Exit status: 0 the flags are printed, 1 they are not.
package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	module = "modernc.org/sqlite"
	// unusedFor is how long a copy is kept that no build asks for.
	unusedFor = 7 * 24 * time.Hour
)

// inputs is the program itself: another program makes another copy.
//
//go:embed *.go *.txt
var inputs embed.FS

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "rowmeter:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	f := flag.NewFlagSet("rowmeter", flag.ContinueOnError)
	proof := f.Bool("proof", false, "make the copy that the tests prove the meter by")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	root, err := goList("")
	if err != nil {
		return err
	}
	flags, err := prepare(root, *proof)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, flags)
	return err
}

// goList is the folder of a module, the one worked in by default, as go.mod has it, whatever flags others have set.
func goList(name string) (string, error) {
	args := []string{"list", "-m", "-f", "{{.Dir}}"}
	if name != "" {
		args = append(args, name)
	}
	cmd := exec.Command("go", args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), "GOFLAGS=", "GOWORK=off"), os.Stderr
	b, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go list -m %s: %w", name, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// prepare makes the copy if it isn't there, and returns the flags.
func prepare(root string, proof bool) (string, error) {
	gomod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("read the module: %w", err)
	}
	gosum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return "", fmt.Errorf("read the module's sums: %w", err)
	}
	name, err := fingerprint(gomod, gosum, proof)
	if err != nil {
		return "", err
	}
	cache := filepath.Join(root, ".cache", "rowmeter")
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		err = makeCopy(cache, name, gomod, gosum, proof)
		if err != nil {
			return "", err
		}
		prune(cache, name)
	} else if err != nil {
		return "", fmt.Errorf("look for the copy: %w", err)
	}
	now := time.Now()
	_ = os.Chtimes(dir, now, now) // only says that it is in use
	tags := "rowmeter"
	if proof {
		tags += ",rowmeterproof"
	}
	return quote("-modfile="+filepath.Join(dir, "go.mod")) + " -tags=" + tags, nil
}

// quote makes one of Go's flags out of text that may hold spaces.
func quote(flag string) string {
	if !strings.ContainsAny(flag, " \t'\"") {
		return flag
	}
	if strings.Contains(flag, "'") {
		return `"` + flag + `"`
	}
	return "'" + flag + "'"
}

// fingerprint names a copy by what it is made of. The module's files are those of the sum in go.sum.
func fingerprint(gomod, gosum []byte, proof bool) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%v %d %s %d %s\n", proof, len(gomod), gomod, len(gosum), gosum)
	err := fs.WalkDir(inputs, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := inputs.ReadFile(path)
		fmt.Fprintf(h, "%s %d %s\n", path, len(b), b)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the program: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// makeCopy makes the folder cache/name. It appears whole or not at all; who comes second finds it there.
func makeCopy(cache, name string, gomod, gosum []byte, proof bool) error {
	dir, err := goList(module)
	if err == nil && dir == "" { // it is not in Go's cache of modules
		cmd := exec.Command("go", "mod", "download", module)
		cmd.Env, cmd.Stderr = append(os.Environ(), "GOFLAGS=", "GOWORK=off"), os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("download %s: %w", module, err)
		}
		dir, err = goList(module)
	}
	if err != nil {
		return err
	}
	s, err := readModule(dir)
	if err != nil {
		return err
	}
	if err := s.addMeter(proof); err != nil {
		return err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	tmp, err := os.MkdirTemp(cache, "tmp-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := s.write(filepath.Join(tmp, "sqlite")); err != nil {
		return err
	}
	// From the module's root, so that a binary, which has it written in it, is the same wherever it was built.
	mod := fmt.Appendf(bytes.Clone(gomod), "\nreplace %s => ./.cache/rowmeter/%s/sqlite\n", module, name)
	if err := os.WriteFile(filepath.Join(tmp, "go.mod"), mod, 0o644); err != nil {
		return fmt.Errorf("write go.mod: %w", err)
	}
	if err := os.WriteFile(filepath.Join(tmp, "go.sum"), gosum, 0o644); err != nil {
		return fmt.Errorf("write go.sum: %w", err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("write the copy: %w", err)
	}
	dst := filepath.Join(cache, name)
	if err := os.Rename(tmp, dst); err != nil {
		if _, there := os.Stat(filepath.Join(dst, "go.mod")); there == nil {
			return nil
		}
		return fmt.Errorf("write the copy: %w", err)
	}
	return nil
}

// addMeter patches the files, and adds ours.
func (s *source) addMeter(proof bool) error {
	list := slices.Clone(anchors)
	names := []string{"meter"}
	if proof {
		names = append(names, "proof")
		for i := range list {
			list[i] = proving(i)
		}
		list = append(list, watch)
	}
	if err := s.patch(list); err != nil {
		return err
	}
	for _, name := range names {
		b, err := inputs.ReadFile(name + ".go.txt")
		if err != nil {
			return fmt.Errorf("read the program: %w", err)
		}
		if name == "proof" {
			b = append(b, "\n// MeterAnchors are the names of MeterOff's bits, from the first.\nvar MeterAnchors = []string{\n"...)
			for _, a := range anchors[:counting] {
				b = fmt.Appendf(b, "\t%q,\n", a.name)
			}
			b = append(b, "}\n"...)
		}
		// A name that no file of the library has.
		file := "lib/rowmeter_" + name + ".go"
		if _, taken := s.files[file]; taken {
			return fmt.Errorf("the library has a file %s: %w", file, errAnchor)
		}
		s.files[file] = string(b)
		for _, t := range targets {
			s.lib[t] = append(s.lib[t], file)
		}
	}
	return nil
}

// prune removes what no build has asked for in long.
func prune(cache, keep string) {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.Name() != keep && time.Since(info.ModTime()) > unusedFor {
			_ = os.RemoveAll(filepath.Join(cache, e.Name()))
		}
	}
}
