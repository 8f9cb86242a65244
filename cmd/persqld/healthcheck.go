package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/persqld/persqld/internal/adminsock"
	"github.com/persqld/persqld/internal/config"
)

// healthAnswerMax is how many bytes of an answer are read: the server's own has a few dozen.
const healthAnswerMax = 64 << 10

// Range of --timeout.
const (
	leastHealthTimeout    = 10 * time.Millisecond
	greatestHealthTimeout = time.Minute
)

type healthcheckCmd struct {
	config.Location `embed:"" group:"settings"`
	config.Address  `embed:"" group:"settings"`
	Timeout         config.Duration `default:"3s" help:"How long to wait for the answer, 10ms to 1m (default: ${default})." placeholder:"TIME"`
}

// Validate refuses what can't be asked.
func (cmd *healthcheckCmd) Validate() error {
	if cmd.Timeout.Duration < leastHealthTimeout || cmd.Timeout.Duration > greatestHealthTimeout {
		return fmt.Errorf("--timeout is %v, out of its range %v to %v", cmd.Timeout.Duration, leastHealthTimeout, greatestHealthTimeout)
	}
	return cmd.Address.Validate()
}

// health is what the healthcheck prints when all is well.
type health struct {
	Status string `json:"status"` // "ready"
	URL    string `json:"url"`    // where that was answered
}

// Run asks GET /readyz on the address of the settings.
func (cmd *healthcheckCmd) Run(a *app) error {
	ctx, cancel := context.WithTimeout(a.ctx, cmd.Timeout.Duration)
	defer cancel()
	addresses, err := reachable(cmd.Listen)
	if err != nil {
		return err
	}
	// No proxy of the environment: the server is on this machine. No redirect: the server sends none.
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for _, address := range addresses {
		url := "http://" + address + "/readyz"
		if err = askReady(ctx, client, url); err == nil {
			return a.print(health{Status: "ready", URL: url}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, "ready:", url)
				return err
			})
		}
		var answered *adminsock.Error
		if errors.As(err, &answered) {
			return err
		}
	}
	if ctx.Err() != nil {
		return &adminsock.Error{Message: fmt.Sprintf("no answer from %s within %v", cmd.Listen, cmd.Timeout.Duration), Code: "timeout",
			Hint: "the server is overloaded, or something else listens there; --timeout gives it longer"}
	}
	return &adminsock.Error{Message: fmt.Sprintf("ask the server at %s: %v", cmd.Listen, err), Code: "no_answer",
		Hint: "persqld serve must run on this machine, with the same PERSQLD_LISTEN"}
}

// askReady asks one address. Its error is an *adminsock.Error where somebody answered.
func askReady(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Error string `json:"error"`
		Data  struct {
			Status string `json:"status"`
		} `json:"data"`
	}
	err = json.NewDecoder(io.LimitReader(response.Body, healthAnswerMax)).Decode(&answer)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch {
	case err == nil && response.StatusCode == http.StatusOK && answer.Data.Status == "ready":
		return nil
	case err == nil && response.StatusCode == http.StatusServiceUnavailable && answer.Error != "":
		return &adminsock.Error{Message: fmt.Sprintf("not ready: %s answers %d: %s", url, response.StatusCode, answer.Error), Code: "not_ready"}
	}
	return &adminsock.Error{Message: fmt.Sprintf("%s answers %d, and not as persqld does", url, response.StatusCode), Code: "not_persqld",
		Hint: "another program listens there; see PERSQLD_LISTEN"}
}

// reachable are the addresses under which this machine reaches a server that listens on listen: itself, or loopback
// where it names no host or all of them. Literal addresses, since the image has no /etc/hosts of its own.
func reachable(listen string) ([]string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("split address: %w", err)
	}
	if number, err := net.LookupPort("tcp", port); err == nil && number == 0 {
		return nil, &adminsock.Error{Message: "the system chooses the port of " + listen + ", and nobody can know it", Code: "no_port",
			Hint: "give PERSQLD_LISTEN a port"}
	}
	loopback4, loopback6 := net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port)
	if host == "" {
		return []string{loopback4, loopback6}, nil
	}
	address, err := netip.ParseAddr(host)
	switch {
	case err != nil || !address.Unmap().IsUnspecified():
		return []string{net.JoinHostPort(host, port)}, nil
	case address.Unmap().Is4():
		return []string{loopback4}, nil
	}
	return []string{loopback6, loopback4}, nil
}
