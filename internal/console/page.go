package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"path"
	"time"
)

// Page is one of this package's pages.
type Page interface {
	// title is the page's title and heading.
	title() string
	// Framed is what stands around the page, for who sends it to fill in.
	Framed() *Frame
	// view is the file of the page's template, and what it is filled with.
	view() (file string, data any)
}

// Frame is what all pages have. Pages embed it.
type Frame struct {
	SignedIn string // e-mail address of who is signed in; empty for nobody
	Problem  string // what went wrong, a sentence without its full stop
	Hint     string // what helps, a clause
}

// Framed is the frame itself.
func (f *Frame) Framed() *Frame { return f }

//go:embed style.css
var style string

//go:embed pages/*.html
var files embed.FS

// Policy is the Content-Security-Policy of every page: its one style sheet, its forms to this server, and nothing else. Nobody may frame it.
var Policy = policy("'self'")

// PolicyOnward is Policy for a page whose form leads on to an app: browsers hold redirects after a form to form-action, too, and an app's own redirects after that. So it
// says what kind of address may come, https and the scheme of the app's, not which.
func PolicyOnward(scheme string) string { return policy("'self' https: " + scheme + ":") }

func policy(formAction string) string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action " + formAction + "; base-uri 'none'; frame-ancestors 'none'"
}

const layoutFile = "layout.html"

// templates are the pages' by their files, each with the layout around it.
var templates = func() map[string]*template.Template {
	layout := template.Must(template.New("").Funcs(template.FuncMap{
		"text": textRuns, "name": nameRuns, "plain": plain, "moment": moment, "stamp": stamp,
	}).ParseFS(files, "pages/"+layoutFile))
	all := map[string]*template.Template{}
	entries, err := files.ReadDir("pages")
	if err != nil {
		panic(err) // they are part of the program
	}
	for _, e := range entries {
		if e.Name() != layoutFile {
			all[e.Name()] = template.Must(template.Must(layout.Clone()).ParseFS(files, path.Join("pages", e.Name())))
		}
	}
	return all
}()

// Render makes the page's HTML.
func Render(p Page) ([]byte, error) {
	file, data := p.view()
	var b bytes.Buffer
	err := templates[file].ExecuteTemplate(&b, layoutFile, struct {
		*Frame
		Title string
		Style template.CSS
		Wide  bool
		Page  any
	}{p.Framed(), p.title(), template.CSS(style), file == approvalFile, data})
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", file, err)
	}
	return b.Bytes(), nil
}

// count writes a number with commas.
func count(n int64) string {
	digits := fmt.Sprint(n)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// noun is a number with its noun: 1 row, 2 rows.
func noun(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + one + "s"
}

// moment is a time as people read it. There is no script that knows the reader's zone, so it says which one it is.
func moment(t time.Time) string { return t.UTC().Format("Mon 2 Jan 2006, 15:04 UTC") }

// stamp is a time as programs read it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// span is how long something takes, to one unit: people decide, they don't measure.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "less than a minute"
	case d < time.Hour:
		return noun(int64(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return noun(int64(d/time.Hour), "hour")
	}
	return noun(int64(d/(24*time.Hour)), "day")
}

// distance is where a time lies from now.
func distance(t, now time.Time) string {
	if d := t.Sub(now); d >= 0 {
		return "in " + span(d)
	}
	return span(now.Sub(t)) + " ago"
}
