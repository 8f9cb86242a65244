package api

import (
	"net/http"
	"strconv"
	"strings"
	"unicode"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
)

type searchRequest struct {
	Q     string `json:"q"`
	Query string `json:"query"`
	Limit int    `json:"limit"`
}

type searchHit struct {
	Kind        string  `json:"kind"`
	Table       string  `json:"table"`
	Column      string  `json:"column,omitempty"`
	Type        string  `json:"type,omitempty"`
	Description *string `json:"description"`
	Score       float64 `json:"score"`
}

const (
	searchLimit    = 20
	searchMaxLimit = 200
	searchMaxQuery = 1000
)

// search serves GET and POST …/search.
func (s *Server) search(x *exchange) error {
	var req searchRequest
	if x.r.Method == http.MethodPost {
		if err := x.object(&req); err != nil {
			return err
		}
	} else {
		q := x.r.URL.Query()
		req.Q, req.Query = q.Get("q"), q.Get("query")
		if v := q.Get("limit"); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil {
				return newFault(http.StatusBadRequest, codeBadRequest, "limit must be a whole number", "")
			}
			req.Limit = n
			if n < 1 {
				req.Limit = -1
			}
		}
	}
	if req.Q == "" {
		req.Q = req.Query
	}
	if req.Limit == 0 {
		req.Limit = searchLimit
	}
	if req.Limit < 1 || req.Limit > searchMaxLimit {
		return newFault(http.StatusBadRequest, codeBadRequest, "limit must be a whole number from 1 to "+strconv.Itoa(searchMaxLimit), "")
	}
	if strings.TrimSpace(req.Q) == "" || len(req.Q) > searchMaxQuery {
		return newFault(http.StatusBadRequest, codeBadRequest, "q must have 1 to "+strconv.Itoa(searchMaxQuery)+" characters", "")
	}
	var info schemaInfo
	err := x.read(func(tx *store.Tx) (err error) {
		info, err = readSchema(tx, &x.gate.Caller, false)
		return err
	})
	if err != nil {
		return err
	}
	hits, err := rank(&info, req.Q, req.Limit)
	if err != nil {
		return err
	}
	return x.reply(struct {
		Hits []searchHit `json:"hits"`
	}{hits})
}

// rank finds tables and columns with FTS5 in a database of its own in memory: bm25 weighs a name over a description,
// the porter stemmer makes plurals equal, and every word finds longer ones that begin with it.
func rank(info *schemaInfo, q string, limit int) ([]searchHit, error) {
	hits := []searchHit{}
	terms := words(q)
	if len(terms) == 0 {
		return hits, nil
	}
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.OpenMemory(th)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.Exec("CREATE VIRTUAL TABLE f USING fts5(name, context, description, tokenize='porter unicode61 remove_diacritics 2')"); err != nil {
		return nil, err
	}
	insert, err := c.Own("INSERT INTO f(name, context, description) VALUES(?,?,?)")
	if err != nil {
		return nil, err
	}
	all := []searchHit{}
	add := func(h searchHit, name, context string) error {
		all = append(all, h)
		description := ""
		if h.Description != nil {
			description = *h.Description
		}
		p := make([]sqlite.Param, 0, 3)
		for _, v := range []string{name, context, description} {
			p = append(p, textParam(v)...)
		}
		if err := insert.Bind(p); err != nil {
			return err
		}
		_, err := insert.Step()
		insert.Reset()
		return err
	}
	for i := range info.Tables {
		t := &info.Tables[i]
		if err := add(searchHit{Kind: "table", Table: t.Table, Description: t.Description}, spoken(t.Table), ""); err != nil {
			return nil, err
		}
		for j := range t.Columns {
			col := &t.Columns[j]
			if err := add(searchHit{Kind: "column", Table: t.Table, Column: col.Name, Type: col.Type, Description: col.Description}, spoken(col.Name), spoken(t.Table)); err != nil {
				return nil, err
			}
		}
	}
	insert.Done()
	find, err := c.Own("SELECT rowid, -bm25(f, 10.0, 1.0, 4.0) AS score FROM f WHERE f MATCH ? ORDER BY score DESC, rowid LIMIT ?")
	if err != nil {
		return nil, err
	}
	defer find.Done()
	match := `"` + strings.Join(terms, `"* OR "`) + `"*`
	if err := find.Bind(append(textParam(match), sqlite.Param{Value: sqlite.Value{Kind: sqlite.Integer, Int: int64(limit)}})); err != nil {
		return nil, err
	}
	for {
		row, err := find.Step()
		if err != nil {
			return nil, err
		}
		if !row {
			return hits, nil
		}
		h := all[find.Column(0).Int-1]
		h.Score = find.Column(1).Float
		hits = append(hits, h)
	}
}

// spoken is an identifier as its words, and as it is: "orderItems_v2" is "order Items v2 orderItems_v2".
func spoken(name string) string {
	var b strings.Builder
	var last rune
	for _, r := range name {
		switch {
		case r == '_' || r == '-' || r == '.':
			r = ' '
		case unicode.IsUpper(r) && unicode.IsLower(last):
			b.WriteByte(' ')
		}
		b.WriteRune(r)
		last = r
	}
	if b.String() != name {
		b.WriteString(" " + name)
	}
	return b.String()
}

// words are the letters and digits of a text, apart.
func words(text string) []string {
	list := strings.FieldsFunc(spoken(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) && !unicode.IsMark(r) })
	return list[:min(len(list), 64)]
}
