package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// reflinkBar bounds how much longer a branch of ten times the size takes where files share blocks.
const reflinkBar = 1.5

// measureReflink makes full branches of 10 and of 100 MB on an XFS in a file of its own, which shares blocks between files. Where such a one can't be mounted, it says so.
func measureReflink(ctx context.Context, ours *program) (v verdict, err error) {
	work := "full branch of 100 MB where files share blocks (XFS), beside one of 10 MB"
	at := filepath.Join(ours.dir, "xfs")
	unmount, err := mountXFS(ctx, at)
	if err != nil {
		return skip(work, "time", fmt.Sprintf("≤ %.2f ×", reflinkBar), err.Error()), nil
	}
	defer func() { err = errors.Join(err, unmount()) }()
	there := *ours
	there.dir = at
	s, err := there.start(ctx, "branch", 0)
	if err != nil {
		return v, err
	}
	defer s.stop()
	c, err := dial(s.address)
	if err != nil {
		return v, err
	}
	defer c.close()
	var slugs []string
	for _, mb := range []int{10, 100} {
		slug, err := makeOf(c, mb)
		if err != nil {
			return v, err
		}
		slugs = append(slugs, slug)
	}
	times := make([][]float64, len(slugs))
	for turn := range 3*branchTurns + 1 {
		for i, slug := range slugs {
			took, err := timed(c, fullBranch(slug, turn))
			if err != nil {
				return v, err
			}
			if turn > 0 {
				times[i] = append(times[i], took)
			}
		}
	}
	small, large := median(times[0]), median(times[1])
	return beside(work, "time", small, large, fmt.Sprintf("≤ %.2f ×", reflinkBar), large <= reflinkBar*small, formatMillis), nil
}

// mountXFS makes a file system in a file and mounts it.
func mountXFS(ctx context.Context, at string) (unmount func() error, err error) {
	if err := os.MkdirAll(at, 0o700); err != nil {
		return nil, err
	}
	image := at + ".img"
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	err = errors.Join(f.Truncate(4<<30), f.Close()) // a hole: what isn't written takes no room
	if err != nil {
		return nil, err
	}
	for _, args := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			os.Remove(image)
			return nil, fmt.Errorf("%s: %w %s", args[0], err, strings.TrimSpace(string(out)))
		}
	}
	return func() error {
		defer os.Remove(image)
		return exec.Command("umount", at).Run()
	}, nil
}
