package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
)

// writeResult writes the data of an answer as a table for people.
func writeResult(w io.Writer, data json.RawMessage) error {
	var result struct {
		Columns         []string
		Rows            [][]any
		Changes         json.Number
		LastInsertRowid json.Number
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // all 64 bits
	if err := decoder.Decode(&result); err != nil {
		return fmt.Errorf("decode the server's answer: %w", err)
	}
	if len(result.Columns) == 0 {
		text := plural(result.Changes.String(), "row") + " changed"
		if result.LastInsertRowid != "0" {
			text += ", last insert rowid " + result.LastInsertRowid.String()
		}
		_, err := fmt.Fprintln(w, text)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(n int, cell func(i int) string) {
		for i := range n {
			if i > 0 {
				io.WriteString(table, "\t")
			}
			io.WriteString(table, cell(i))
		}
		io.WriteString(table, "\n")
	}
	line(len(result.Columns), func(i int) string { return printable(result.Columns[i]) })
	line(len(result.Columns), func(i int) string { return strings.Repeat("-", max(1, len([]rune(printable(result.Columns[i]))))) })
	for _, row := range result.Rows {
		line(len(row), func(i int) string { return cellOf(row[i]) })
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "(%s)\n", plural(strconv.Itoa(len(result.Rows)), "row"))
	return err
}

func plural(n, what string) string {
	if n == "1" {
		return "1 " + what
	}
	return n + " " + what + "s"
}

// cellOf is a value as a table shows it: NULL, numbers as JSON has them, blobs as SQL has them, text as it is.
func cellOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case json.Number:
		return v.String()
	case string:
		return printable(v)
	case map[string]any:
		if text, ok := v["$blob"].(string); ok {
			if content, err := base64.StdEncoding.DecodeString(text); err == nil {
				return fmt.Sprintf("x'%x'", content)
			}
		}
	}
	return printable(fmt.Sprint(v))
}

// printable is text without characters that would end a line or a cell, or that a terminal takes for commands.
func printable(text string) string {
	if !strings.ContainsFunc(text, unsafeToPrint) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unsafeToPrint(r) {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// unsafeToPrint tells of control characters, and of those that change the direction of what follows.
func unsafeToPrint(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }
