package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	branchTurns  = 7
	branchBar    = 1.3
	schemaTables = 50
	schemaBar    = 10 * time.Millisecond
	mergeRows    = 1_000_000
	mergeBar     = 30 * time.Millisecond
	recordBar    = 1.25
	recordCount  = 400
)

// rawRequest is one of a path of its own.
func rawRequest(method, path, body string) []byte {
	return []byte(method + " " + path + " HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer " + benchToken + "\r\nContent-Type: application/json\r\nContent-Length: " +
		strconv.Itoa(len(body)) + "\r\n\r\n" + body)
}

// measureBranches makes branches of databases with rows and without, merges one, and writes into one that records its changes.
func measureBranches(ctx context.Context, ours *program, _ pace) (verdicts []verdict, err error) {
	s, err := ours.start(ctx, "branch", 0)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	c, err := dial(s.address)
	if err != nil {
		return nil, err
	}
	defer c.close()
	for _, mb := range []int{10, 100} {
		v, err := measureCopy(c, filepath.Join(ours.dir, "branch"), mb)
		if err != nil {
			return nil, err
		}
		verdicts = append(verdicts, v)
	}
	shared, err := measureReflink(ctx, ours)
	if err != nil {
		return nil, err
	}
	verdicts = append(verdicts, shared)
	for _, measure := range []func(*client) ([]verdict, error){measureSchemaBranch, measureMerge, measureRecording} {
		more, err := measure(c)
		if err != nil {
			return nil, err
		}
		verdicts = append(verdicts, more...)
	}
	return verdicts, nil
}

// timed is how long a request takes.
func timed(c *client, request []byte) (float64, error) {
	began := time.Now()
	_, err := c.do(request)
	return float64(time.Since(began)), err
}

// measureCopy makes full branches of a database, each beside a copy of its file, synced, and the making of an empty database.
func measureCopy(c *client, dir string, mb int) (v verdict, err error) {
	slug, err := makeOf(c, mb)
	if err != nil {
		return v, err
	}
	var copies, branches, ratios []float64
	for turn := range branchTurns + 1 {
		empty, err := timed(c, rawRequest("POST", "/v1/databases", fmt.Sprintf(`{"slug":"empty-%d-%d"}`, mb, turn)))
		if err != nil {
			return v, err
		}
		path, _, err := largestFile(dir)
		if err != nil {
			return v, err
		}
		copied, err := rangeCopy(path, filepath.Join(dir, "copy"))
		if err != nil {
			return v, err
		}
		took, err := timed(c, fullBranch(slug, turn))
		if err != nil {
			return v, err
		}
		if turn == 0 {
			continue // to warm up, and to have the log copied back
		}
		copies, branches, ratios = append(copies, copied+empty), append(branches, took), append(ratios, took/(copied+empty))
	}
	for turn := range branchTurns + 1 {
		if _, err := c.do(rawRequest("DELETE", "/v1/db/"+benchNamespace+"/"+slug+"/branches/r"+strconv.Itoa(turn), "")); err != nil {
			return v, err
		}
	}
	v = beside(fmt.Sprintf("full branch of %d MB, beside copy, fsync and an empty database", mb), "time", median(copies), median(branches), fmt.Sprintf("≤ %.2f ×", branchBar), median(ratios) <= branchBar, formatMillis)
	v.Ratio = median(ratios)
	return v, nil
}

// makeOf makes a database of about so many megabytes.
func makeOf(c *client, mb int) (slug string, err error) {
	slug = fmt.Sprintf("of-%d-mb", mb)
	statements := []string{"CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)"}
	for from := 0; from < mb*250; from += 2500 {
		statements = append(statements, fmt.Sprintf("WITH RECURSIVE s(n) AS (SELECT %d UNION ALL SELECT n+1 FROM s WHERE n < %d) INSERT INTO t SELECT n, randomblob(3900) FROM s", from+1, from+2500))
	}
	for _, sql := range statements {
		if _, err := c.do(queryRequest(slug, sql).bytes); err != nil {
			return slug, err
		}
	}
	return slug, nil
}

func fullBranch(slug string, turn int) []byte {
	return newTemplate(slug, "claim_branch", fmt.Sprintf(`{"ref":"r%d","content":"full"}`, turn)).bytes
}

// rangeCopy copies a file within the kernel and syncs the copy, in nanoseconds.
func rangeCopy(from, to string) (took float64, err error) {
	defer os.Remove(to)
	began := time.Now()
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, in); err != nil { // copy_file_range, between files
		return 0, err
	}
	err = out.Sync()
	return float64(time.Since(began)), err
}

// measureSchemaBranch makes branches without rows of a database with 50 tables.
func measureSchemaBranch(c *client) ([]verdict, error) {
	var tables []string
	for i := range schemaTables {
		tables = append(tables, fmt.Sprintf(`{"sql":"CREATE TABLE t%d(id INTEGER PRIMARY KEY, name TEXT NOT NULL, amount REAL, at INTEGER)"}`, i), fmt.Sprintf(`{"sql":"CREATE INDEX i%d ON t%d(name)"}`, i, i))
	}
	for from := 0; from < len(tables); from += 50 {
		if _, err := c.do(newTemplate("shape", "batch", `{"transaction":true,"statements":[`+strings.Join(tables[from:from+50], ",")+`]}`).bytes); err != nil {
			return nil, err
		}
	}
	var times []float64
	for turn := range 20 {
		took, err := timed(c, newTemplate("shape", "claim_branch", fmt.Sprintf(`{"ref":"r%d"}`, turn)).bytes)
		if err != nil {
			return nil, err
		}
		times = append(times, took)
	}
	return []verdict{limit(fmt.Sprintf("schema branch of %d tables", schemaTables), "p50", median(times), float64(schemaBar), formatMillis)}, nil
}

// measureMerge previews and merges branches in which 10 rows of a million changed.
func measureMerge(c *client) ([]verdict, error) {
	if _, err := c.do(queryRequest("million", "CREATE TABLE t(a INTEGER PRIMARY KEY, b INTEGER)").bytes); err != nil {
		return nil, err
	}
	for from := 0; from < mergeRows; from += 100_000 {
		sql := fmt.Sprintf("WITH RECURSIVE s(n) AS (SELECT %d UNION ALL SELECT n+1 FROM s WHERE n < %d) INSERT INTO t SELECT n, 0 FROM s", from+1, from+100_000)
		if _, err := c.do(queryRequest("million", sql).bytes); err != nil {
			return nil, err
		}
	}
	var previews, merges []float64
	for turn := range branchTurns {
		if _, err := c.do(newTemplate("million", "claim_branch", `{"ref":"r","content":"full"}`).bytes); err != nil {
			return nil, err
		}
		sql := fmt.Sprintf("UPDATE t SET b = b + 1 WHERE a IN (SELECT 1 + (value * 99991 + %d) %% 1000000 FROM json_each('[0,1,2,3,4,5,6,7,8,9]'))", turn)
		if _, err := c.do(queryRequest("million.r", sql).bytes); err != nil {
			return nil, err
		}
		took, err := timed(c, newTemplate("million", "branches/r/preview", `{"mode":"full"}`).bytes)
		if err != nil {
			return nil, err
		}
		previews = append(previews, took)
		if took, err = timed(c, newTemplate("million", "branches/r/merge", `{"mode":"full"}`).bytes); err != nil {
			return nil, err
		}
		merges = append(merges, took)
	}
	return []verdict{
		limit("preview of 10 changed rows of 1,000,000", "p50", median(previews), float64(mergeBar), formatMillis),
		limit("merge of 10 changed rows of 1,000,000", "p50", median(merges), float64(mergeBar), formatMillis),
	}, nil
}

// measureRecording inserts single rows into a database and into a full branch of it, in turn.
func measureRecording(c *client) ([]verdict, error) {
	if _, err := c.do(setupRequest("plain", smallRows).bytes); err != nil {
		return nil, err
	}
	if _, err := c.do(newTemplate("plain", "claim_branch", `{"ref":"r","content":"full"}`).bytes); err != nil {
		return nil, err
	}
	plain, recorded := insertRequest("plain"), insertRequest("plain.r")
	var floors, times []float64
	for i := range recordCount {
		for _, r := range []struct {
			request template
			times   *[]float64
		}{{plain, &floors}, {recorded, &times}} {
			r.request.set(0, keyFrom+i)
			took, err := timed(c, r.request.bytes)
			if err != nil {
				return nil, err
			}
			*r.times = append(*r.times, took)
		}
	}
	got, floor := median(times), median(floors)
	return []verdict{beside("single insert into a branch that records, beside one into its parent", "p50", floor, got, fmt.Sprintf("≤ %.2f ×", recordBar), got <= recordBar*floor, formatMillis)}, nil
}
