package main

import (
	"fmt"
	"go/build"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// target is a system that the server is built for.
type target struct{ os, arch string }

func (t target) String() string { return t.os + "/" + t.arch }

var targets = []target{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}}

// source is what of the module the build needs: by name from the module's root, the files' text, and which of them
// each target's package lib is made of.
type source struct {
	files map[string]string
	lib   map[target][]string
}

// readModule reads the module's packages that ours import, for each target.
func readModule(dir string) (*source, error) {
	s := &source{files: make(map[string]string), lib: make(map[target][]string)}
	for _, name := range []string{"go.mod", "LICENSE"} {
		if err := s.read(dir, name); err != nil {
			return nil, err
		}
	}
	for _, t := range targets {
		ctx := build.Default
		ctx.GOOS, ctx.GOARCH, ctx.CgoEnabled, ctx.Compiler = t.os, t.arch, false, "gc"
		seen := make(map[string]bool)
		if err := s.readPackages(&ctx, dir, ".", seen); err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		if !seen["lib"] {
			return nil, fmt.Errorf("%s: the module doesn't import its package lib: %w", t, errAnchor)
		}
	}
	return s, nil
}

// readPackages reads the package in a folder of the module, and those of the module that it imports.
func (s *source) readPackages(ctx *build.Context, dir, name string, seen map[string]bool) error {
	if seen[name] {
		return nil
	}
	seen[name] = true
	p, err := ctx.ImportDir(filepath.Join(dir, name), 0)
	if err != nil {
		return fmt.Errorf("read package %s: %w", name, err)
	}
	for _, file := range slices.Concat(p.GoFiles, p.SFiles, p.HFiles, p.EmbedPatterns) {
		file = filepath.ToSlash(filepath.Join(name, file))
		if err := s.read(dir, file); err != nil {
			return err
		}
		if name == "lib" {
			t := target{ctx.GOOS, ctx.GOARCH}
			s.lib[t] = append(s.lib[t], file)
		}
	}
	for _, imported := range p.Imports {
		if below, ok := strings.CutPrefix(imported, module+"/"); ok {
			if err := s.readPackages(ctx, dir, below, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *source) read(dir, name string) error {
	if _, ok := s.files[name]; ok {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("read %s: %w", module, err)
	}
	s.files[name] = string(b)
	return nil
}

// patch puts the anchors into the files. A file that several targets share is patched once.
func (s *source) patch(anchors []anchor) error {
	type place struct{ anchor, file string }
	done := make(map[place]bool)
	for _, a := range anchors {
		for _, t := range targets {
			file, err := s.holder(t, a)
			if err != nil {
				return err
			}
			if done[place{a.name, file}] {
				continue
			}
			done[place{a.name, file}] = true
			text := s.files[file]
			start := declaration(text, a.in)
			end := start + strings.Index(text[start:], "\n}\n") + len("\n}\n")
			decl, err := a.apply(text[start:end])
			if err != nil {
				return fmt.Errorf("%s (%s): %w", file, t, err)
			}
			s.files[file] = text[:start] + decl + text[end:]
		}
	}
	return nil
}

// holder is the one file of the target's library that has the anchor's declaration.
func (s *source) holder(t target, a anchor) (string, error) {
	var found []string
	for _, file := range s.lib[t] {
		if declaration(s.files[file], a.in) >= 0 {
			found = append(found, file)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("anchor %q wants %q in one file of %s, it is in %d %v: %w", a.name, a.in, t, len(found), found, errAnchor)
	}
	return found[0], nil
}

// declaration is where a line begins with the text, or -1.
func declaration(text, begin string) int {
	i := strings.Index(text, "\n"+begin)
	if i < 0 {
		return -1
	}
	return i + 1
}

// write makes the files in a folder.
func (s *source) write(dir string) error {
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		if err := os.WriteFile(path, []byte(s.files[name]), 0o644); err != nil {
			return fmt.Errorf("write patched file: %w", err)
		}
	}
	return nil
}
