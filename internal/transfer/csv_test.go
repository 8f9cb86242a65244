package transfer_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/transfer"
)

func written(v sqlite.Value) string {
	switch v.Kind {
	case sqlite.Null:
		return "NULL"
	case sqlite.Integer:
		return fmt.Sprint("i", v.Int)
	case sqlite.Real:
		return fmt.Sprint("r", v.Float)
	}
	return fmt.Sprintf("%q", v.Bytes)
}

func TestReadCSV(t *testing.T) {
	long := func(n int, rest string) string { return "a,b\n" + strings.Repeat("1,2.5\n", n) + rest }
	for _, tt := range []struct {
		name, text string
		opt        transfer.CSVOptions
		columns    string
		last       string // the last row
		count      int64
	}{
		{"types", "i,r,t,e\n1,1.5,x,\n-2,3,,\n", transfer.CSVOptions{Header: true}, "i INTEGER,r REAL,t TEXT,e TEXT", "i-2,r3,NULL,NULL", 2},
		{"no header", "1,x\n", transfer.CSVOptions{}, "column1 INTEGER,column2 TEXT", `i1,"x"`, 1},
		{"texts that look like numbers", "a,b,c,d,e,f,g\n007,+1,1_000,0x1F,true,2024-01-01,12345678901234567890\n", transfer.CSVOptions{Header: true},
			"a TEXT,b TEXT,c TEXT,d TEXT,e TEXT,f TEXT,g TEXT", `"007","+1","1_000","0x1F","true","2024-01-01","12345678901234567890"`, 1},
		{"numbers at their ends", "9223372036854775807,0.1,1e300,-0.5,0\n", transfer.CSVOptions{}, "column1 INTEGER,column2 REAL,column3 REAL,column4 REAL,column5 INTEGER",
			"i9223372036854775807,r0.1,r1e+300,r-0.5,i0", 1},
		{"inf and nan", "inf,NaN,1e999,-0,.5,5.\n", transfer.CSVOptions{}, "column1 TEXT,column2 TEXT,column3 TEXT,column4 TEXT,column5 TEXT,column6 REAL", `"inf","NaN","1e999","-0",".5",r5`, 1},
		{"names", "a,A,,a,column3,a_2\n1,2,3,4,5,6\n", transfer.CSVOptions{Header: true}, "a INTEGER,A_3 INTEGER,column3_2 INTEGER,a_4 INTEGER,column3 INTEGER,a_2 INTEGER", "i1,i2,i3,i4,i5,i6", 1},
		{"mark and CRLF", "\xef\xbb\xbfa,b\r\n1,\"x\r\ny\"\r\n", transfer.CSVOptions{Header: true}, "a INTEGER,b TEXT", `i1,"x\ny"`, 1},
		{"header alone", "a,b\n", transfer.CSVOptions{Header: true}, "a TEXT,b TEXT", "", 0},
		{"a word after 200 rows", long(200, "x,y\n"), transfer.CSVOptions{Header: true}, "a INTEGER,b REAL", `"x","y"`, 201},
		{"leading zeros after 200 rows", long(200, "007,1\n"), transfer.CSVOptions{Header: true}, "a TEXT,b REAL", `"007",r1`, 201},
		{"a word within 200 rows", long(199, "x,y\n"), transfer.CSVOptions{Header: true}, "a TEXT,b TEXT", `"x","y"`, 200},
		{"a great integer among reals", "a\n1.5\n9007199254740993\n", transfer.CSVOptions{Header: true}, "a TEXT", `"9007199254740993"`, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tab, err := transfer.ReadCSV(strings.NewReader(tt.text), tt.opt)
			if err != nil {
				t.Fatal(err)
			}
			var columns []string
			for _, c := range tab.Columns {
				columns = append(columns, c.Name+" "+c.Type.String())
			}
			if got := strings.Join(columns, ","); got != tt.columns {
				t.Errorf("columns %s, want %s", got, tt.columns)
			}
			last, n := "", int64(0)
			for row := range tab.Rows() {
				var fields []string
				for _, v := range row {
					fields = append(fields, written(v.Value))
				}
				last = strings.Join(fields, ",")
				n++
			}
			if last != tt.last || n != tt.count || tab.Count != n {
				t.Errorf("row %d of %d is %s, want %d: %s", n, tab.Count, last, tt.count, tt.last)
			}
		})
	}
}

func TestCSVRefused(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		opt        transfer.CSVOptions
		reason     transfer.Reason
		message    string
	}{
		{"empty", "", transfer.CSVOptions{}, transfer.ReasonCSV, "empty"},
		{"ragged", "a,b\n1,2\n\n3\n", transfer.CSVOptions{Header: true}, transfer.ReasonCSV, "Line 4 has 1 fields, the first record has 2"},
		{"open quote", "a\n\"x\n", transfer.CSVOptions{Header: true}, transfer.ReasonCSV, "Line 2"},
		{"bare quote", "a\nsay \"hi\"\n", transfer.CSVOptions{Header: true}, transfer.ReasonCSV, "Line 2"},
		{"rows", "1\n2\n3\n", transfer.CSVOptions{MaxRows: 2}, transfer.ReasonTooLarge, "more than 2 rows"},
		{"bytes", "1\n2\n3\n", transfer.CSVOptions{MaxBytes: 5}, transfer.ReasonTooLarge, "longer than 5 bytes"},
		{"columns", strings.Repeat(",", 2000) + "\n", transfer.CSVOptions{}, transfer.ReasonTooLarge, "2001 columns"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := transfer.ReadCSV(strings.NewReader(tt.text), tt.opt)
			var e *transfer.Error
			if !errors.As(err, &e) || e.Reason != tt.reason || !strings.Contains(e.Message, tt.message) {
				t.Errorf("%v, want %s: %s", err, tt.reason, tt.message)
			}
		})
	}
}

// What a CSV text holds is in the table when it was inserted, whatever the column's affinity does.
func TestCSVLosesNothing(t *testing.T) {
	fields := []string{"1", "1.5", "007", " 7", "+7", "1e3", "12345678901234567890", "x", "9007199254740993", "0.1", "-0", "1.", "0"}
	for _, before := range []string{"1", "1.5"} {
		for _, f := range fields {
			text := "a\n" + strings.Repeat(before+"\n", 200) + f + "\n"
			tab, err := transfer.ReadCSV(strings.NewReader(text), transfer.CSVOptions{Header: true})
			if err != nil {
				t.Fatal(err)
			}
			var last sqlite.Param
			for row := range tab.Rows() {
				last = row[0]
			}
			path := fresh(t)
			edit(t, path, "CREATE TABLE t(a "+tab.Columns[0].Type.String()+")")
			err = with(path, func(c *sqlite.Conn) error {
				s, err := c.Own("INSERT INTO t VALUES(?1) RETURNING a, a=?1")
				if err != nil {
					return err
				}
				defer s.Done()
				if err := s.Bind([]sqlite.Param{last}); err != nil {
					return err
				}
				if _, err := s.Step(); err != nil {
					return err
				}
				got := s.Column(0)
				if got.Kind == sqlite.Text && string(got.Bytes) != f || got.Kind != sqlite.Text && s.Column(1).Int != 1 || last.Kind == sqlite.Text && got.Kind != sqlite.Text {
					t.Errorf("after %s, %q is %s, stored %s", before, f, written(last.Value), written(got))
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}
