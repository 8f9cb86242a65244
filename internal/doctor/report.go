package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says how bad a finding is.
type Severity string

const (
	// Error is a loss, or what keeps the server or a database from working.
	Error Severity = "error"
	// Warning is what somebody should look at; nothing is lost.
	Warning Severity = "warning"
	// Info is what the next start takes care of by itself, or what may be good to know.
	Info Severity = "info"
)

func (s Severity) rank() int { return slices.Index([]Severity{Error, Warning, Info}, s) }

// Finding is one thing that was found.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"`               // a stable word
	Path     string   `json:"path,omitempty"`     // below the data directory
	Database string   `json:"database,omitempty"` // namespace/slug, as far as they are known
	Message  string   `json:"message"`
	Fix      string   `json:"fix,omitempty"` // what to do
}

// Report is the result of an examination.
type Report struct {
	Sound         bool      `json:"sound"` // no error and no warning
	Data          string    `json:"data"`
	Full          bool      `json:"full"`
	Format        int       `json:"format"`
	CatalogSchema int       `json:"catalogSchema"`
	Databases     int       `json:"databases"` // files of databases that were examined
	Bytes         int64     `json:"bytes"`     // of those, with their logs
	Histories     int       `json:"histories"` // of databases, that were examined
	Findings      []Finding `json:"findings"`  // the worst first
}

// maxOfCode is how many findings of one code are reported; of 100,000 files with the wrong mode, nobody reads them all.
const maxOfCode = 1000

// close sorts the findings, bounds them and judges.
func (r *Report) close() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(a.Severity.rank()-b.Severity.rank(), strings.Compare(a.Code, b.Code), strings.Compare(a.Path, b.Path))
	})
	r.Sound = !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity != Info })
	kept, of := []Finding{}, 0
	for i, f := range r.Findings {
		if i > 0 && r.Findings[i-1].Code == f.Code && r.Findings[i-1].Severity == f.Severity {
			of++
		} else {
			of = 1
		}
		if of <= maxOfCode {
			kept = append(kept, f)
		}
		if last := i+1 == len(r.Findings) || r.Findings[i+1].Code != f.Code || r.Findings[i+1].Severity != f.Severity; last && of > maxOfCode {
			kept = append(kept, Finding{Severity: f.Severity, Code: f.Code, Message: fmt.Sprintf("and %d more", of-maxOfCode)})
		}
	}
	r.Findings = kept
}
