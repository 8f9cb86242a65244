package main

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/yannh/kubeconform/pkg/validator"
)

// kubernetesVersion is the version whose schemas are asked.
const kubernetesVersion = "1.37.0"

// manifest is one resource that was found valid.
type manifest struct {
	File string `json:"file"`
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// schemaFolder is where the wheel of PyPI's kubernetes-validate keeps the strict schemas of that version.
const schemaFolder = "kubernetes_validate/kubernetes-json-schema/v" + kubernetesVersion + "-local-strict/"

// unpackSchemas lays the schemas of a wheel into a folder, as kubeconform can read them without the internet: their
// references lead to a page of kubernetes.io, which is the file beside them.
func unpackSchemas(wheel, folder string) error {
	archive, err := zip.OpenReader(wheel)
	if err != nil {
		return fmt.Errorf("open wheel: %w", err)
	}
	defer archive.Close()
	there := strings.NewReplacer(`"$id":`, `"$comment":`, `"/api/_definitions.json#`, `"_definitions.json#`)
	found := 0
	for _, entry := range archive.File {
		name, ok := strings.CutPrefix(entry.Name, schemaFolder)
		if !ok || filepath.Base(name) != name || filepath.Ext(name) != ".json" {
			continue
		}
		r, err := entry.Open()
		if err != nil {
			return fmt.Errorf("open %s in wheel: %w", entry.Name, err)
		}
		text, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("read %s in wheel: %w", entry.Name, err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte(there.Replace(string(text))), 0o600); err != nil {
			return fmt.Errorf("write schema: %w", err)
		}
		found++
	}
	if found == 0 {
		return fmt.Errorf("%s has no %s", wheel, schemaFolder)
	}
	return nil
}

// validateManifests runs kubeconform with -strict: unknown fields and missing schemas are failures. Nothing is
// downloaded.
func validateManifests(wheel string, files []string) (valid []manifest, err error) {
	folder, err := os.MkdirTemp("", "schemas-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	if err := unpackSchemas(wheel, folder); err != nil {
		return nil, err
	}
	v, err := validator.New([]string{folder + "/{{ .ResourceKind }}{{ .KindSuffix }}.json"},
		validator.Opts{KubernetesVersion: kubernetesVersion, Strict: true})
	if err != nil {
		return nil, fmt.Errorf("make validator: %w", err)
	}
	var problems []error
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("open manifest: %w", err)
		}
		for _, result := range v.Validate(file, f) { // closes f
			signature, err := result.Resource.Signature()
			switch {
			case result.Status == validator.Empty:
			case result.Status != validator.Valid:
				problems = append(problems, fmt.Errorf("%s: %w", file, result.Err))
			case err != nil:
				problems = append(problems, fmt.Errorf("%s: %w", file, err))
			default:
				valid = append(valid, manifest{File: file, Kind: signature.Kind, Name: signature.Name})
			}
		}
	}
	return valid, errors.Join(problems...)
}
