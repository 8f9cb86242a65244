package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// query is one metric of one expression.
type query struct {
	Where  string   `json:"where"` // the panel's title, or the rule's name
	Expr   string   `json:"expr"`
	Metric string   `json:"metric"`
	Labels []string `json:"labels"` // by which it is chosen or grouped
}

// grafana stands in for the variables that Grafana puts into an expression outside of strings.
var grafana = strings.NewReplacer("$__rate_interval", "5m", "$__interval", "1m", "$__range", "1h")

func readQueries(files []string) ([]query, error) {
	plugins.RegisterDefaultPlugins()
	p := parser.NewParser(parser.Options{})
	var all []query
	for _, file := range files {
		var found []query
		var err error
		if filepath.Ext(file) == ".json" {
			found, err = ofDashboard(p, file)
		} else {
			found, err = ofRules(p, file)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// ofRules reads alert and recording rules, as Prometheus does.
func ofRules(p parser.Parser, file string) ([]query, error) {
	groups, problems := rulefmt.ParseFile(file, false, model.UTF8Validation, p, slog.New(slog.DiscardHandler))
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	var all []query
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			found, err := ofExpr(p, rule.Alert+rule.Record, rule.Expr)
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
	}
	return all, nil
}

// panel is the part of a panel that asks something.
type panel struct {
	Title   string `json:"title"`
	Type    string `json:"type"`
	Targets []struct {
		Expr string `json:"expr"`
	} `json:"targets"`
	Panels []panel `json:"panels"`
}

// ofDashboard holds a dashboard against Grafana's schema, in which unknown and missing fields are failures, and reads
// the expressions of its panels and variables.
func ofDashboard(p parser.Parser, file string) ([]query, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read dashboard: %w", err)
	}
	//lint:ignore SA1019 The classic schema is the one that every supported Grafana imports; the second version is not.
	var strict dashboard.Dashboard
	// An empty list of errors comes as an error, too.
	var problems cog.BuildErrors
	if err := strict.UnmarshalJSONStrict(text); err != nil && (!errors.As(err, &problems) || len(problems) > 0) {
		return nil, fmt.Errorf("decode dashboard: %w", err)
	}
	if err := strict.Validate(); err != nil && (!errors.As(err, &problems) || len(problems) > 0) {
		return nil, fmt.Errorf("validate dashboard: %w", err)
	}
	var plain struct {
		Panels     []panel `json:"panels"`
		Templating struct {
			List []struct {
				Name  string `json:"name"`
				Type  string `json:"type"`
				Query any    `json:"query"`
			} `json:"list"`
		} `json:"templating"`
	}
	if err := json.Unmarshal(text, &plain); err != nil {
		return nil, fmt.Errorf("decode dashboard: %w", err)
	}
	var all []query
	for _, variable := range plain.Templating.List {
		if variable.Type != "query" {
			continue
		}
		text, _ := variable.Query.(string)
		inner, ok := strings.CutPrefix(text, "label_values(")
		if selector, label, comma := strings.Cut(strings.TrimSuffix(inner, ")"), ","); ok && comma {
			found, err := ofExpr(p, "variable "+variable.Name, fmt.Sprintf("sum by (%s) (%s)", strings.TrimSpace(label), selector))
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
			continue
		}
		return nil, fmt.Errorf("variable %s: %q is not label_values(selector, label)", variable.Name, text)
	}
	var walk func(panels []panel) error
	walk = func(panels []panel) error {
		for _, at := range panels {
			if at.Type != "row" && len(at.Targets) == 0 {
				return fmt.Errorf("panel %q asks nothing", at.Title)
			}
			for _, target := range at.Targets {
				found, err := ofExpr(p, at.Title, target.Expr)
				if err != nil {
					return err
				}
				all = append(all, found...)
			}
			if err := walk(at.Panels); err != nil {
				return err
			}
		}
		return nil
	}
	return all, walk(plain.Panels)
}

// ofExpr reads one expression of PromQL.
func ofExpr(p parser.Parser, where, expr string) ([]query, error) {
	parsed, err := p.ParseExpr(grafana.Replace(expr))
	if err != nil {
		return nil, fmt.Errorf("%s: parse %q: %w", where, expr, err)
	}
	var all []query
	parser.Inspect(parsed, func(node parser.Node, path []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		q := query{Where: where, Expr: expr, Metric: selector.Name, Labels: []string{}}
		for _, m := range selector.LabelMatchers {
			if m.Name == model.MetricNameLabel {
				q.Metric = m.Value
				continue
			}
			q.Labels = append(q.Labels, m.Name)
		}
		for _, above := range path {
			if group, ok := above.(*parser.AggregateExpr); ok && !group.Without {
				q.Labels = append(q.Labels, group.Grouping...)
			}
		}
		slices.Sort(q.Labels)
		q.Labels = slices.Compact(q.Labels)
		all = append(all, q)
		return nil
	})
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: %q asks for no metric", where, expr)
	}
	return all, nil
}
