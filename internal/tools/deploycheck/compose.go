package main

import (
	"context"
	"fmt"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// readCompose loads a compose file as docker compose does, with an empty environment.
func readCompose(ctx context.Context, name string) (*types.Project, error) {
	options, err := cli.NewProjectOptions([]string{name}, cli.WithName("persqld"), cli.WithResolvedPaths(true))
	if err != nil {
		return nil, fmt.Errorf("set options: %w", err)
	}
	project, err := options.LoadProject(ctx)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	return project, nil
}
