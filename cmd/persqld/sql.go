package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/persqld/persqld/internal/adminsock"
	"github.com/persqld/persqld/internal/catalog"
)

const (
	// maxStatement is how many bytes of a statement are read from stdin: the greatest value of PERSQLD_MAX_SQL.
	maxStatement = 100_000_000
	// maxAnswer is how many bytes of an answer are read: the greatest value of PERSQLD_MAX_RESULT, and its envelope.
	maxAnswer = 1_001_000_000
)

type sqlCmd struct {
	Database  string   `arg:"" help:"Namespace and database, for example acme/orders."`
	Statement string   `arg:"" help:"One statement; - reads it from the standard input."`
	Param     []string `sep:"none" help:"A parameter, in order, or :name=VALUE for a named one. A value is JSON (42, 0.5, null, true, '\"42\"', '{\"$$blob\":\"AP8=\"}'), else text." placeholder:"VALUE"`
	URL       string   `name:"url" env:"PERSQL_API_URL" default:"http://localhost:8080" help:"The server to ask (PERSQL_API_URL; default: ${default}). The token is PERSQL_TOKEN." placeholder:"URL"`
	Data      string   `help:"Ask the files of a data directory that no server uses, with all rights, instead of a server." placeholder:"DIR"`

	namespace, slug string
}

// Validate reads the arguments.
func (cmd *sqlCmd) Validate() error {
	var ok bool
	if cmd.namespace, cmd.slug, ok = strings.Cut(cmd.Database, "/"); !ok || !catalog.ValidSlug(cmd.namespace) || !catalog.ValidSlug(cmd.slug) {
		return fmt.Errorf("%q is no database; give namespace/database, for example acme/orders", cmd.Database)
	}
	if _, err := params(cmd.Param); err != nil {
		return err
	}
	if cmd.Data != "" {
		return nil
	}
	if u, err := url.Parse(cmd.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("PERSQL_API_URL (--url) is %q; give an address such as http://localhost:8080", cmd.URL)
	}
	if os.Getenv("PERSQL_TOKEN") == "" {
		return errors.New("PERSQL_TOKEN is not set; put a token of the namespace into it, or give a stopped data directory with --data")
	}
	return nil
}

// params makes what a request has as params of the flags.
func params(given []string) (any, error) {
	named := map[string]json.RawMessage{}
	list := []json.RawMessage{}
	for _, p := range given {
		name, value, ok := strings.Cut(p, "=")
		if ok && len(name) > 1 && strings.ContainsRune(":@$", rune(name[0])) {
			if _, twice := named[name]; twice {
				return nil, fmt.Errorf("--param %s is given twice", name)
			}
			named[name] = paramValue(value)
			continue
		}
		list = append(list, paramValue(p))
	}
	if len(named) > 0 && len(list) > 0 {
		return nil, errors.New("give every --param a name, or none")
	}
	if len(named) > 0 {
		return named, nil
	}
	return list, nil
}

// paramValue is text as JSON, if it is a value of SQLite's in JSON, else as a string.
func paramValue(text string) json.RawMessage {
	if raw := []byte(strings.TrimSpace(text)); json.Valid(raw) && raw[0] != '[' && (raw[0] != '{' || bytes.Contains(raw, []byte(`"$blob"`))) {
		return raw
	}
	raw, err := json.Marshal(text)
	if err != nil { // no string has one
		return json.RawMessage("null")
	}
	return raw
}

// Run runs the statement and prints its result.
func (cmd *sqlCmd) Run(a *app) (err error) {
	ctx, stop := signal.NotifyContext(a.ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	statement := cmd.Statement
	if statement == "-" {
		text, err := io.ReadAll(io.LimitReader(os.Stdin, maxStatement+1))
		if err != nil {
			return fmt.Errorf("read statement: %w", err)
		}
		if len(text) > maxStatement {
			return fmt.Errorf("read statement: it has more than %d bytes, which no server takes", maxStatement)
		}
		statement = string(text)
	}
	given, err := params(cmd.Param)
	if err != nil {
		return err
	}
	body, err := json.Marshal(struct {
		SQL    string `json:"sql"`
		Params any    `json:"params"`
	}{statement, given})
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	var data json.RawMessage
	if cmd.Data != "" {
		data, err = cmd.askFiles(ctx, body)
	} else {
		client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		data, err = cmd.send(ctx, client, cmd.URL, os.Getenv("PERSQL_TOKEN"), body)
	}
	if err != nil {
		return err
	}
	return a.print(data, func(w io.Writer) error { return writeResult(w, data) })
}

// send asks a server, or what acts as one, and returns the answer's data.
func (cmd *sqlCmd) send(ctx context.Context, client *http.Client, base, token string, body []byte) (json.RawMessage, error) {
	where := strings.TrimRight(base, "/") + "/v1/db/" + cmd.namespace + "/" + cmd.slug + "/query"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, where, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, &adminsock.Error{Message: fmt.Sprintf("ask server: %v", err), Code: "unreachable",
			Hint: "is it running? PERSQL_API_URL says where; --data asks the files of a stopped one"}
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the server's answer (it may have done what was asked): %w", err)
	}
	var answer struct {
		Success bool            `json:"success"`
		Data    json.RawMessage `json:"data"`
		*adminsock.Error
	}
	if err := json.Unmarshal(raw, &answer); err != nil || !answer.Success && answer.Error == nil {
		return nil, &adminsock.Error{Message: fmt.Sprintf("the answer, of status %d, is none of persqld's", resp.StatusCode), Code: "unreachable", Hint: "PERSQL_API_URL says where the server is, without a path"}
	}
	if !answer.Success {
		return nil, answer.Error
	}
	return answer.Data, nil
}

// errHeld says what to do about a directory that a server has.
func errHeld(err error) error {
	return &adminsock.Error{Message: err.Error(), Code: "locked", Hint: "ask the server that runs on it: leave --data out, and set PERSQL_API_URL and PERSQL_TOKEN"}
}

// missing tells whether a file isn't there.
func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}
