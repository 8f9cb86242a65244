package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/catalog"
)

// Size is a number of bytes. Its text is a number with or without a fraction and a unit: B, kB or KB, MB, GB, TB
// (powers of 1000), KiB, MiB, GiB, TiB (powers of 1024); no unit means bytes.
type Size int64

// unit names are compared without case, so kB and KB are the same.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

// ParseSize reads a Size.
func ParseSize(text string) (Size, error) {
	number, factor := strings.TrimSpace(text), int64(1)
	for _, unit := range sizeUnits {
		if n := len(number) - len(unit.name); n > 0 && strings.EqualFold(number[n:], unit.name) {
			number, factor = strings.TrimSpace(number[:n]), unit.bytes
			break
		}
	}
	if whole, err := strconv.ParseInt(number, 10, 64); err == nil && whole >= 0 {
		if whole > math.MaxInt64/factor {
			return 0, fmt.Errorf("%q is too great a size", text)
		}
		return Size(whole * factor), nil
	}
	fraction, err := strconv.ParseFloat(number, 64)
	if err != nil || !(fraction >= 0 && fraction < math.MaxInt64/float64(factor)) {
		return 0, fmt.Errorf("%q is not a size such as 10MB or 64MiB", text)
	}
	return Size(fraction * float64(factor)), nil
}

// UnmarshalText reads a Size.
func (s *Size) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSize(string(text))
	return err
}

// String is the size in the greatest unit of which it is a whole number.
func (s Size) String() string {
	best := fmt.Sprintf("%dB", int64(s))
	count := int64(s)
	for _, unit := range sizeUnits {
		if s > 0 && int64(s)%unit.bytes == 0 && int64(s)/unit.bytes < count {
			count = int64(s) / unit.bytes
			best = fmt.Sprintf("%d%s", count, unit.name)
		}
	}
	return best
}

// Duration is a length of time in Go's form, such as 30s, 1m30s or 720h.
type Duration struct{ time.Duration }

// UnmarshalText reads a Duration.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 30s or 24h", text)
	}
	d.Duration = parsed
	return nil
}

// Dollars is an amount of US dollars, in nano-dollars. Its text is a number with at most 9 decimals.
type Dollars int64

// UnmarshalText reads an amount.
func (d *Dollars) UnmarshalText(text []byte) error {
	nanos, err := catalog.ParseDollars(strings.TrimPrefix(strings.TrimSpace(string(text)), "$"))
	if err != nil {
		return fmt.Errorf("%q: %w", text, err)
	}
	*d = Dollars(nanos)
	return nil
}

// String is the amount in dollars.
func (d Dollars) String() string { return catalog.DollarText(int64(d)) }
