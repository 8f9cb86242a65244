package main

import (
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/persqld/persqld/internal/config"
	"github.com/persqld/persqld/internal/doctor"
)

type doctorCmd struct {
	config.Location `embed:"" group:"settings"`
	Full            bool `help:"Compare every index entry with its row and read all of the history, too; takes several times as long."`
}

// errReported ends a command that has told its failure in its own output.
var errReported = errors.New("something was found")

// Run examines the data directory and prints what it finds.
func (cmd *doctorCmd) Run(a *app) error {
	ctx, stop := signal.NotifyContext(a.ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	report, err := doctor.Examine(ctx, cmd.Data, doctor.Options{Full: cmd.Full})
	if err != nil {
		return err
	}
	if err := a.print(report, func(w io.Writer) error { return writeReport(w, report) }); err != nil {
		return err
	}
	if !report.Sound {
		return errReported
	}
	return nil
}

func writeReport(w io.Writer, r *doctor.Report) error {
	count := map[doctor.Severity]int{}
	for _, f := range r.Findings {
		count[f.Severity]++
		var about []string
		for _, s := range []string{f.Database, f.Path} {
			if s != "" {
				about = append(about, s)
			}
		}
		fmt.Fprintf(w, "%s %s: %s\n    %s\n", f.Severity, f.Code, strings.Join(about, ", "), f.Message)
		if f.Fix != "" {
			fmt.Fprintf(w, "    → %s\n", f.Fix)
		}
	}
	verdict := "sound"
	if !r.Sound {
		verdict = fmt.Sprintf("%d errors, %d warnings", count[doctor.Error], count[doctor.Warning])
	}
	_, err := fmt.Fprintf(w, "%s: %d databases, %d bytes, %d histories examined: %s\n", r.Data, r.Databases, r.Bytes, r.Histories, verdict)
	return err
}
