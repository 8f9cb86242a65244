// Command deploycheck reads what Dockerfile and deploy/ hold with the libraries of those whose formats they are, fails
// where one of them does, and prints as JSON what the end-to-end suite compares with the binary:
//
//	deploycheck dockerfile FILE              buildkit's parser and linter; the image that the last stage describes
//	deploycheck compose FILE                 compose-go; the services with every default and relative path resolved
//	deploycheck manifests WHEEL FILE...      kubeconform, strict, with the JSON schemas of kubernetes-validate's wheel
//	deploycheck queries FILE...              dashboards (.json) by Grafana's schema, alert rules (.yaml) by Prometheus'
//	                                         own reader; every metric that their expressions name, with its labels
//
// It is a module of its own, so that these libraries are no dependency of the server's.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

var errUsage = errors.New("give a command and its files: dockerfile FILE, compose FILE, manifests WHEEL FILE [FILE], or queries FILE [FILE]")

func main() {
	result, err := run(context.Background(), os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "deploycheck:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (any, error) {
	if len(args) < 2 {
		return nil, errUsage
	}
	switch command, files := args[0], args[1:]; command {
	case "dockerfile":
		return readDockerfile(files[0])
	case "compose":
		return readCompose(ctx, files[0])
	case "manifests":
		return validateManifests(files[0], files[1:])
	case "queries":
		return readQueries(files)
	}
	return nil, errUsage
}
