package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// Error is a setting, in the environment or the file, that is unknown or can't be read. Its text says where it stands.
type Error struct{ err error }

// Error returns the text.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

// Resolver gives kong the settings that are no flag on the command line: from the environment, else from the YAML file
// that --config or PERSQLD_CONFIG names, else none, and kong takes the default. An unknown variable or key is an error
// in every command that has a setting. An empty variable is one that isn't there.
type Resolver struct {
	environ map[string]string
	unknown error
	file    map[string]entry
	read    bool
}

var _ kong.Resolver = (*Resolver)(nil)

// NewResolver is a Resolver over an environment such as os.Environ returns.
func NewResolver(environ []string) *Resolver {
	r := &Resolver{environ: map[string]string{}}
	known := map[string]string{} // variable → itself
	for _, s := range Declared() {
		known[s.Env] = s.Env
	}
	for _, pair := range environ {
		variable, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(variable, EnvPrefix) {
			continue
		}
		if _, ok := known[variable]; ok {
			if value != "" {
				r.environ[variable] = value
			}
			continue
		}
		if !injected.MatchString(variable) && r.unknown == nil {
			r.unknown = fmt.Errorf("unknown setting %s in the environment; the nearest known one is %s", variable, nearest(variable, known))
		}
	}
	return r
}

// injected are the variables that Kubernetes sets in every container for a service whose name begins with persqld.
var injected = regexp.MustCompile(`^PERSQLD_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// Validate is part of kong.Resolver.
func (r *Resolver) Validate(*kong.Application) error { return nil }

// Resolve is part of kong.Resolver. Its errors are *Error.
func (r *Resolver) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	value, err := r.resolve(ctx, flag)
	if err != nil {
		return nil, &Error{err}
	}
	return value, nil
}

func (r *Resolver) resolve(ctx *kong.Context, flag *kong.Flag) (any, error) {
	if flag.Group == nil || flag.Group.Key != Group {
		return nil, nil
	}
	if r.unknown != nil {
		return nil, r.unknown
	}
	if !r.read {
		if err := r.readFile(r.fileName(ctx)); err != nil {
			return nil, err
		}
		r.read = true
	}
	if value, ok := r.environ[envName(flag.Name)]; ok {
		return value, r.try(flag, value, envName(flag.Name))
	}
	if e, ok := r.file[flag.Name]; ok {
		return e.value, r.try(flag, e.value, e.place+" "+flag.Name)
	}
	return nil, nil
}

// try decodes a value for the sake of an error that says where the value stands.
func (r *Resolver) try(flag *kong.Flag, value, place string) error {
	scan := kong.Scan().PushTyped(value, kong.FlagValueToken)
	scratch := reflect.New(flag.Target.Type()).Elem()
	if err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, scratch); err != nil {
		return fmt.Errorf("%s: %w", place, err)
	}
	return nil
}

// fileName is the file's name: the flag's, else the variable's.
func (r *Resolver) fileName(ctx *kong.Context) string {
	for _, flag := range ctx.Flags() {
		if flag.Name != "config" || flag.Group == nil || flag.Group.Key != Group {
			continue
		}
		if name, ok := ctx.FlagValue(flag).(string); ok && name != "" {
			return name
		}
	}
	return r.environ[EnvPrefix+"CONFIG"]
}

// entry is a value in the file, with its place for messages.
type entry struct{ value, place string }

func (r *Resolver) readFile(name string) error {
	if name == "" {
		return nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return fmt.Errorf("read settings from %s: %w", name, err)
	}
	if len(document.Content) == 0 {
		return nil // nothing but comments
	}
	top := document.Content[0]
	if top.Kind != yaml.MappingNode {
		return fmt.Errorf("read settings from %s: it must be a list of lines of the form `max-open: 1000`", name)
	}
	known := map[string]string{}
	for _, s := range Declared() {
		if s.Flag != "config" {
			known[s.Flag] = s.Flag
		}
	}
	r.file = map[string]entry{}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, node := top.Content[i], top.Content[i+1]
		place := fmt.Sprintf("%s line %d:", name, key.Line)
		if _, ok := known[key.Value]; !ok {
			return fmt.Errorf("%s unknown setting %q; the nearest known one is %s", place, key.Value, nearest(key.Value, known))
		}
		if _, twice := r.file[key.Value]; twice {
			return fmt.Errorf("%s %s is set a second time", place, key.Value)
		}
		value, err := scalar(node)
		if err != nil {
			return fmt.Errorf("%s %s: %w", place, key.Value, err)
		}
		if value != "" {
			r.file[key.Value] = entry{value, place}
		}
	}
	return nil
}

// scalar is a node's value as it is written; a list's values with commas between them.
func scalar(node *yaml.Node) (string, error) {
	switch node.Kind {
	case yaml.ScalarNode:
		if node.Tag == "!!null" {
			return "", nil
		}
		return node.Value, nil
	case yaml.SequenceNode:
		parts := make([]string, len(node.Content))
		for i, item := range node.Content {
			if item.Kind != yaml.ScalarNode {
				return "", errors.New("a list of settings holds values, not lists or maps")
			}
			parts[i] = item.Value
		}
		return strings.Join(parts, ","), nil
	}
	return "", errors.New("give a value, not a map")
}

// nearest is the known name with the fewest changes of a character from name.
func nearest(name string, known map[string]string) string {
	names := make([]string, 0, len(known))
	for k := range known {
		names = append(names, k)
	}
	slices.Sort(names)
	return slices.MinFunc(names, func(a, b string) int { return distance(name, a) - distance(name, b) })
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// HelpFormatter adds a setting's variable and range to its help.
func HelpFormatter(value *kong.Value) string {
	if value.Flag == nil || value.Flag.Group == nil || value.Flag.Group.Key != Group {
		return value.Help
	}
	help := strings.TrimSuffix(value.Help, ".") + " (" + envName(value.Name)
	if bounds := value.Tag.Get("range"); bounds != "" {
		help += ", " + strings.Replace(bounds, "..", " to ", 1)
	}
	if auto := value.Tag.Get("auto"); auto != "" {
		help += "; default: " + auto
	} else if value.Default != "" {
		help += "; default: " + value.Default
	}
	return help + ")."
}
