package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// work is one row of the table: how its server is prepared, what is sent to
// it, and what must be reached.
type work struct {
	name    string
	maxOpen int
	// prepare fills a new server's databases. Works of one fixture share the
	// servers and what was prepared.
	fixture string
	prepare func(*server) error
	traffic traffic
	bars    []bar
	// measure replaces the usual measurement where it isn't one of traffic;
	// it starts servers of its own.
	measure func(context.Context, *program, *work, pace) (sample, error)
}

// pace is how long a measurement takes.
type pace struct {
	window time.Duration
	warm   time.Duration
	settle time.Duration // until resident memory is read
	count  int           // databases of the memory row
}

const (
	bigRows     = 10_000 // rows of the one big table
	smallRows   = 100    // rows of each of many small ones
	pageRows    = 1_000
	batchSize   = 100
	manyCount   = 1_000
	coldCount   = 600
	coldMaxOpen = 64
	memoryCount = 5_000
)

const (
	createItem = `CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT NOT NULL, price REAL NOT NULL, stock INTEGER NOT NULL, note TEXT)`
	createNews = `CREATE TABLE event(id INTEGER PRIMARY KEY, kind TEXT NOT NULL, amount INTEGER NOT NULL, body TEXT NOT NULL)`
)

// fillItem is the statement that makes n rows with keys from keyFrom.
func fillItem(n int) string {
	return fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT %d UNION ALL SELECT i + 1 FROM n WHERE i < %d) `+
		`INSERT INTO item SELECT i, 'item number ' || i, i * 0.25, i %% 97, 'a note of some length about ' || i FROM n`,
		keyFrom, keyFrom+n-1)
}

// prepareOne makes the one big database.
func prepareOne(s *server) error {
	return visit(s, &traffic{request: setupRequest("one", bigRows), connections: 1, databases: 1, keys: 1, limit: 1})
}

// prepareMany makes n small databases, by 16 connections.
func prepareMany(n int) func(*server) error {
	return func(s *server) error {
		return visit(s, &traffic{
			request: setupRequest("db-"+slugMark, smallRows), connections: 16, databases: n, keys: smallRows, limit: int64(n),
		})
	}
}

func setupRequest(slug string, rows int) template {
	return newTemplate(slug, "batch", fmt.Sprintf(`{"transaction":true,"statements":[{"sql":%s},{"sql":%s},{"sql":%s}]}`,
		strconv.Quote(createItem), strconv.Quote(createNews), strconv.Quote(fillItem(rows))))
}

func selectRequest(slug string) template {
	return newTemplate(slug, "query", `{"sql":"SELECT id, name, price FROM item WHERE id = ?","params":[`+keyMark+`]}`)
}

func insertRequest(slug string) template {
	return newTemplate(slug, "query", `{"sql":"INSERT INTO event(kind, amount, body) VALUES (?, ?, ?)","params":["click",`+
		keyMark+`,"a small row's text"]}`)
}

func pageRequest(slug string) template {
	return newTemplate(slug, "query", fmt.Sprintf(`{"sql":"SELECT id, name, price, stock, note FROM item WHERE id >= ? ORDER BY id LIMIT %d","params":[%s]}`,
		pageRows, keyMark))
}

func batchRequest(slug string) template {
	one := `{"sql":"INSERT INTO event(kind, amount, body) VALUES (?, ?, ?)","params":["click",%s,"a small row's text"]}`
	var b strings.Builder
	b.WriteString(`{"transaction":true,"statements":[`)
	fmt.Fprintf(&b, one, keyMark)
	for i := 1; i < batchSize; i++ {
		b.WriteByte(',')
		fmt.Fprintf(&b, one, strconv.Itoa(keyFrom+i))
	}
	b.WriteString(`]}`)
	return newTemplate(slug, "batch", b.String())
}

var errContent = errors.New("the answer doesn't hold what was asked for")

// checkKey looks for the row of the key.
func checkKey(body []byte, key int) error {
	return checkContains(body, `"rows":[[`+strconv.Itoa(key)+`,"item number `+strconv.Itoa(key)+`",`, 1)
}

func checkWritten(body []byte, _ int) error {
	return checkContains(body, `"changes":1,`, 1)
}

func checkPage(body []byte, _ int) error {
	return checkContains(body, `,"a note of some length about `, pageRows)
}

func checkBatch(body []byte, _ int) error {
	return checkContains(body, `"changes":1,`, batchSize)
}

func checkContains(body []byte, text string, times int) error {
	if n := bytes.Count(body, []byte(text)); n != times {
		return fmt.Errorf("%w: %q %d times, want %d, in %.300s", errContent, text, n, times, body)
	}
	return nil
}

// works is the table of what persqld promises about speed and memory.
func works() []work {
	one := func(name string, connections int, request template, keys int, check func([]byte, int) error, bars []bar) work {
		return work{
			name: name, maxOpen: 2 * manyCount, fixture: "one", prepare: prepareOne, bars: bars,
			traffic: traffic{request: request, connections: connections, databases: 1, keys: keys, check: check},
		}
	}
	many := func(name string, request template, check func([]byte, int) error, bars []bar) work {
		return work{
			name: name, maxOpen: 2 * manyCount, fixture: "many", prepare: prepareMany(manyCount), bars: bars,
			traffic: traffic{request: request, connections: 16, databases: manyCount, keys: smallRows, check: check},
		}
	}
	return []work{
		one("point select, 1 connection", 1, selectRequest("one"), bigRows, checkKey, rateBars(0.85)),
		one("point select, 16 connections", 16, selectRequest("one"), bigRows, checkKey, rateBars(0.85)),
		one("point select, 64 connections", 64, selectRequest("one"), bigRows, checkKey, rateBars(0.85)),
		one("durable insert, 64 connections", 64, insertRequest("one"), bigRows, checkWritten, rateBars(0.85)),
		one("durable insert, 1 connection", 1, insertRequest("one"), bigRows, checkWritten,
			[]bar{{metricP50, 1.15, atMost}, {metricCPU, 0.85, atLeast}}),
		one("page of 1,000 rows, 8 connections", 8, pageRequest("one"), bigRows-pageRows, checkPage, rateBars(0.9)),
		one("batch of 100 inserts, 8 connections", 8, batchRequest("one"), bigRows, checkBatch, rateBars(0.8)),
		many("1,000 databases, select, 16 connections", selectRequest("db-"+slugMark), checkKey, rateBars(0.85)),
		many("1,000 databases, insert, 16 connections", insertRequest("db-"+slugMark), checkWritten, rateBars(0.9)),
		{
			name: "cold open and read", maxOpen: coldMaxOpen, fixture: "cold", prepare: prepareMany(coldCount),
			traffic: traffic{request: selectRequest("db-" + slugMark), connections: 1, databases: coldCount, keys: smallRows, check: checkKey},
			bars:    []bar{{metricP50, 1.1, atMost}, {metricP99, 1.5, atMost}, {metricCPU, 0, shown}},
		},
		{
			name: "open database, resident", fixture: "memory", measure: measureMemory,
			bars: []bar{{metricRSS, 100_000, absolute}},
		},
	}
}
