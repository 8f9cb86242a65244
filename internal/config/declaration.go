package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

// EnvPrefix begins the name of every environment variable that is a setting.
const EnvPrefix = "PERSQLD_"

// Setting describes one setting, as it is declared.
type Setting struct {
	Flag    string // without the dashes; also the key in the file
	Env     string
	Default string // in words where it depends on the machine
	Unit    string
	Range   string // "<least>..<greatest>", both allowed
	Help    string
	Secret  bool
}

// Declared are all settings in the order of their declaration.
func Declared() []Setting {
	var list []Setting
	eachField(reflect.ValueOf(&Settings{}).Elem(), func(field reflect.StructField, _ reflect.Value) {
		tag := field.Tag
		s := Setting{
			Flag:    flagName(field),
			Default: tag.Get("default"),
			Unit:    tag.Get("unit"),
			Range:   tag.Get("range"),
			Help:    tag.Get("help"),
			Secret:  tag.Get("secret") != "",
		}
		if auto := tag.Get("auto"); auto != "" {
			s.Default = auto
		}
		if enum := tag.Get("enum"); enum != "" {
			s.Range = strings.ReplaceAll(enum, ",", ", ")
		}
		s.Env = envName(s.Flag)
		list = append(list, s)
	})
	return list
}

// Table is the settings as a Markdown table, for the documentation.
func Table() string {
	var b strings.Builder
	b.WriteString("| variable | flag | default | range | |\n|---|---|---|---|---|\n")
	for _, s := range Declared() {
		def, bounds := "none", ""
		if s.Default != "" {
			def = "`" + s.Default + "`"
			if strings.Contains(s.Default, " ") || s.Default == "generated" {
				def = s.Default
			}
		}
		if low, high, ok := strings.Cut(s.Range, ".."); ok {
			bounds = low + " to " + high
			if s.Unit != "bytes" && s.Unit != "time" {
				bounds += " " + s.Unit
			}
		} else {
			bounds = s.Range
		}
		fmt.Fprintf(&b, "| `%s` | `--%s` | %s | %s | %s |\n", s.Env, s.Flag, def, bounds, s.Help)
	}
	return b.String()
}

// eachField calls visit for every field that is a setting.
func eachField(v reflect.Value, visit func(reflect.StructField, reflect.Value)) {
	for field, value := range v.Fields() {
		if field.Anonymous {
			eachField(value, visit)
			continue
		}
		visit(field, value)
	}
}

// flagName is the name that kong gives a field.
func flagName(field reflect.StructField) string {
	if name := field.Tag.Get("name"); name != "" {
		return name
	}
	var b strings.Builder
	for i, r := range field.Name {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('-')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func envName(flag string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// name is a setting's name in messages: both its spellings, since the reader knows where it was set.
func name(flag string) string { return fmt.Sprintf("%s (--%s)", envName(flag), flag) }

// checkRanges compares every setting with its range. A zero that stands for an automatic value is left alone.
func checkRanges(s *Settings) error {
	var problem error
	eachField(reflect.ValueOf(s).Elem(), func(field reflect.StructField, value reflect.Value) {
		low, high, ok := strings.Cut(field.Tag.Get("range"), "..")
		if !ok || problem != nil || value.IsZero() && field.Tag.Get("auto") != "" {
			return
		}
		least, err := measure(value.Interface(), low)
		if err != nil {
			problem = err
			return
		}
		greatest, err := measure(value.Interface(), high)
		if err != nil {
			problem = err
			return
		}
		got := number(value.Interface())
		if got < least || got > greatest {
			problem = fmt.Errorf("%s is %v, out of its range %s to %s", name(flagName(field)), value.Interface(), low, high)
		}
	})
	return problem
}

// measure reads a bound of a range as a value of kind's type, as a number.
func measure(kind any, bound string) (int64, error) {
	switch kind.(type) {
	case Size:
		size, err := ParseSize(bound)
		return int64(size), err
	case Duration:
		d, err := time.ParseDuration(bound)
		return int64(d), err
	case Dollars:
		return catalog.ParseDollars(bound)
	default:
		return strconv.ParseInt(bound, 10, 64)
	}
}

func number(value any) int64 {
	switch v := value.(type) {
	case Size:
		return int64(v)
	case Duration:
		return int64(v.Duration)
	case Dollars:
		return int64(v)
	default:
		return reflect.ValueOf(v).Int()
	}
}
