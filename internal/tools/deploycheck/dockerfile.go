package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// image is what the last stage of a Dockerfile makes.
type image struct {
	User        string            `json:"user"`
	Env         map[string]string `json:"env"`
	Volumes     []string          `json:"volumes"`
	Ports       []string          `json:"ports"`
	Entrypoint  []string          `json:"entrypoint"`
	Command     []string          `json:"command"`
	Healthcheck []string          `json:"healthcheck"` // as Docker keeps it: CMD, and the words
	StopSignal  string            `json:"stopSignal"`
	Base        string            `json:"base"`
	Copies      []copied          `json:"copies"`
	Runs        []string          `json:"runs"` // commands of all stages
}

type copied struct {
	From    string   `json:"from"`
	Sources []string `json:"sources"`
	To      string   `json:"to"`
	Chown   string   `json:"chown"`
}

// readDockerfile fails where the parser or one of its lint rules has something to say.
func readDockerfile(name string) (*image, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read Dockerfile: %w", err)
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	var warnings []string
	for _, w := range parsed.Warnings {
		warnings = append(warnings, w.Short)
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, location []parser.Range) {
		warnings = append(warnings, fmt.Sprintf("%s: %s %v", rule, message, location))
	}})
	stages, _, err := instructions.Parse(parsed.AST, lint)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	if len(warnings) > 0 {
		return nil, fmt.Errorf("lint %s: %s", name, strings.Join(warnings, "; "))
	}
	if len(stages) == 0 {
		return nil, fmt.Errorf("%s has no stage", name)
	}
	last := stages[len(stages)-1]
	im := &image{Base: last.BaseName, Env: map[string]string{}}
	for _, stage := range stages {
		for _, command := range stage.Commands {
			if run, ok := command.(*instructions.RunCommand); ok {
				im.Runs = append(im.Runs, strings.Join(run.CmdLine, " "))
			}
		}
	}
	for _, command := range last.Commands {
		switch c := command.(type) {
		case *instructions.UserCommand:
			im.User = c.User
		case *instructions.EnvCommand:
			for _, pair := range c.Env {
				im.Env[pair.Key] = pair.Value
			}
		case *instructions.VolumeCommand:
			im.Volumes = append(im.Volumes, c.Volumes...)
		case *instructions.ExposeCommand:
			im.Ports = append(im.Ports, c.Ports...)
		case *instructions.EntrypointCommand:
			im.Entrypoint = c.CmdLine
		case *instructions.CmdCommand:
			im.Command = c.CmdLine
		case *instructions.HealthCheckCommand:
			im.Healthcheck = c.Health.Test
		case *instructions.StopSignalCommand:
			im.StopSignal = c.Signal
		case *instructions.CopyCommand:
			im.Copies = append(im.Copies, copied{From: c.From, Sources: c.SourcePaths, To: c.DestPath, Chown: c.Chown})
		default:
			return nil, fmt.Errorf("%s: the last stage has %s, which nothing here understands", name, command.Name())
		}
	}
	return im, nil
}
