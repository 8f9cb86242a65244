package wire_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/wire"
)

const pointBody = `{"sql":"SELECT id, name FROM users WHERE id = ?","params":[42]}`

func BenchmarkDecodePoint(b *testing.B) {
	body := []byte(pointBody)
	var q wire.Query
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := wire.DecodeQuery(body, wire.Limits{}, &q); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodePointEncodingJSON(b *testing.B) {
	body := []byte(pointBody)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var q struct {
			SQL    string `json:"sql"`
			Params []any  `json:"params"`
		}
		if err := json.Unmarshal(body, &q); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeBatchHundredInserts(b *testing.B) {
	one := `{"sql":"INSERT INTO users (id, name, email, score) VALUES (?, ?, ?, ?)","params":[42,"Ada \"L\"","ada@example.com",1.5]}`
	body := []byte(`{"statements":[` + strings.Repeat(one+",", 99) + one + `],"transaction":true}`)
	var batch wire.Batch
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := wire.DecodeBatch(body, wire.Limits{}, &batch); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeMegabyteBlob(b *testing.B) {
	v := sqlite.Value{Kind: sqlite.Blob, Bytes: make([]byte, 1_000_000)}
	body := append(wire.AppendValue([]byte(`{"sql":"INSERT INTO f VALUES (?)","params":[`), v), "]}"...)
	var q wire.Query
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := wire.DecodeQuery(body, wire.Limits{}, &q); err != nil {
			b.Fatal(err)
		}
	}
}

// thousandRows are rows of the kind that tables hold: a key, two texts, a REAL and a nullable INTEGER.
func thousandRows() [][]sqlite.Value {
	rows := make([][]sqlite.Value, 1000)
	for i := range rows {
		rows[i] = []sqlite.Value{
			integer(int64(i)).Value,
			text(fmt.Sprintf("Customer number %d", i)).Value,
			text(fmt.Sprintf("customer%d@exämple.com", i)).Value,
			float(float64(i) * 1.37).Value,
			{},
		}
	}
	return rows
}

func BenchmarkEncodeThousandRows(b *testing.B) {
	rows := thousandRows()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = append(buf[:0], '[')
		for i, row := range rows {
			if i > 0 {
				buf = append(buf, ',')
			}
			buf = append(buf, '[')
			for j, v := range row {
				if j > 0 {
					buf = append(buf, ',')
				}
				buf = wire.AppendValue(buf, v)
			}
			buf = append(buf, ']')
		}
		buf = append(buf, ']')
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkEncodeThousandRowsEncodingJSON(b *testing.B) {
	rows := make([][]any, 0, 1000)
	for _, row := range thousandRows() {
		rows = append(rows, []any{row[0].Int, string(row[1].Bytes), string(row[2].Bytes), row[3].Float, nil})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(rows); err != nil {
			b.Fatal(err)
		}
	}
}
