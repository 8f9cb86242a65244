// Command persqld is the server and its tools: `persqld serve` runs it, the other subcommands work on its data
// directory, whether or not it runs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/persqld/persqld/internal/adminsock"
	"github.com/persqld/persqld/internal/config"
	"github.com/persqld/persqld/internal/replica"
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

type cli struct {
	JSON bool `name:"json" help:"Print one JSON object."`

	Serve       serveCmd       `cmd:"" help:"Run the server."`
	Token       tokenCmd       `cmd:"" help:"Make, list and revoke tokens."`
	Namespace   namespaceCmd   `cmd:"" help:"Make, list and delete namespaces."`
	User        userCmd        `cmd:"" help:"Make and list the people who sign in, and reset their passwords."`
	Identity    identityCmd    `cmd:"" help:"Let machines with tokens of trusted issuers into namespaces."`
	OAuthClient oauthClientCmd `cmd:"" name:"oauth-client" help:"Make, list and delete OAuth apps, and replace their secrets."`
	Keys        keysCmd        `cmd:"" help:"List and replace the keys that the server signs with."`
	Audit       auditCmd       `cmd:"" help:"Print the audit log."`
	Database    databaseCmd    `cmd:"" help:"List databases, and bring deleted ones back."`
	Credit      creditCmd      `cmd:"" help:"Put money into a namespace's prepaid balance."`
	Backup      backupCmd      `cmd:"" help:"Copy the databases and the catalog, once, to a folder or to S3, also while the server runs."`
	Restore     restoreCmd     `cmd:"" help:"Make a server, or a database, from a replica or a backup, as it was at any moment that is kept."`
	Doctor      doctorCmd      `cmd:"" help:"Examine a data directory that no server uses; changes nothing."`
	SQL         sqlCmd         `cmd:"" name:"sql" help:"Run one statement against a server or, with --data, on a stopped data directory."`
	Healthcheck healthcheckCmd `cmd:"" help:"Ask the server that runs here whether it takes requests; exit 0 if it does, 1 if not."`
	Version     versionCmd     `cmd:"" help:"Print the versions of the program and of SQLite."`
}

// app is what a subcommand gets beside its own flags.
type app struct {
	ctx    context.Context
	json   bool
	stdout io.Writer
	stderr io.Writer
}

func main() {
	// The data directory is for its owner alone, and so is every file in it, whoever makes it: SQLite asks for 0644.
	syscall.Umask(0o077)
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is the program; it returns the exit status.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	var c cli
	helped := false
	parser, err := kong.New(&c,
		kong.Name("persqld"),
		kong.Description("Thousands of SQLite databases behind HTTP, in one binary."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.Resolvers(config.NewResolver(environ)),
		kong.ValueFormatter(config.HelpFormatter),
		kong.ExplicitGroups([]kong.Group{{Key: config.Group, Title: "Settings (flag, environment variable, or key of the YAML file):"}}),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "persqld:", err)
		return exitFailed
	}
	command, err := parser.Parse(args)
	if helped {
		return exitOK
	}
	if err != nil {
		var setting *config.Error
		if errors.As(err, &setting) {
			err = setting // without the flag that kong happened to look at
		}
		report(stdout, stderr, c.JSON || wantsJSON(args), &adminsock.Error{Message: err.Error(), Code: "usage", Hint: "persqld --help shows commands and flags"})
		return exitUsage
	}
	a := &app{ctx: ctx, json: c.JSON, stdout: stdout, stderr: stderr}
	if err := command.Run(a); errors.Is(err, errReported) {
		return exitFailed
	} else if err != nil {
		report(stdout, stderr, c.JSON, describe(err))
		return exitFailed
	}
	return exitOK
}

// wantsJSON is for a command line that could not be read.
func wantsJSON(args []string) bool {
	for _, arg := range args {
		if arg == "--json" {
			return true
		}
	}
	return false
}

// report tells of a failure: a sentence on stderr for people, with --json also an object on stdout for programs.
func report(stdout, stderr io.Writer, asJSON bool, problem *adminsock.Error) {
	fmt.Fprintf(stderr, "persqld: %s\n", problem.Message)
	if problem.Hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", problem.Hint)
	}
	if asJSON {
		// Nothing is left to do where stdout is gone.
		_ = json.NewEncoder(stdout).Encode(problem)
	}
}

// print writes a result: as JSON with --json, else as text writes it.
func (a *app) print(result any, text func(w io.Writer) error) error {
	var err error
	if a.json {
		err = json.NewEncoder(a.stdout).Encode(result)
	} else {
		err = text(a.stdout)
	}
	if err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return nil
}

// describe gives an error its code and its hint.
func describe(err error) *adminsock.Error {
	var known *adminsock.Error
	if errors.As(err, &known) {
		return known
	}
	problem := &adminsock.Error{Message: err.Error(), Code: "failed"}
	var gap *replica.MomentError
	if errors.As(err, &gap) {
		problem.Code, problem.Hint = "not_in_replica", "name a moment that is there with --at"
		return problem
	}
	for _, h := range hints {
		if errors.Is(err, h.err) {
			problem.Code, problem.Hint = h.code, h.hint
			break
		}
	}
	return problem
}
