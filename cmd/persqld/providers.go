package main

import (
	"log/slog"
	"time"

	"github.com/persqld/persqld/internal/outbound"
	"github.com/persqld/persqld/internal/upstream"
)

const (
	// providerTime bounds a request to a sign-in provider, and providerBody what it answers, in bytes.
	providerTime = 10 * time.Second
	providerBody = 1 << 20
)

// providers are whom people may sign in with. None is asked for anything before somebody does.
func (cmd *serveCmd) providers(networks outbound.Networks, version string, logger *slog.Logger) (list []upstream.Provider) {
	options := func(id, secret string) upstream.Options {
		return upstream.Options{ClientID: id, ClientSecret: secret, Logger: logger,
			Client: outbound.NewClient(networks, outbound.ClientOptions{Timeout: providerTime, MaxBody: providerBody, Version: version})}
	}
	if cmd.OIDCIssuer != "" {
		list = append(list, upstream.NewOIDC(cmd.OIDCIssuer, cmd.OIDCLabel, options(cmd.OIDCClientID, cmd.OIDCClientSecret)))
	}
	if cmd.GitHubClientID != "" {
		list = append(list, upstream.NewGitHub(cmd.GitHubURL, cmd.GitHubAPIURL, options(cmd.GitHubClientID, cmd.GitHubClientSecret)))
	}
	return list
}
