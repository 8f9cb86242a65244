package wire_test

import (
	"testing"

	"github.com/persqld/persqld/internal/wire"
)

type column struct {
	Column      string `json:"column"`
	Description string `json:"description"`
}

type request struct {
	Name    string            `json:"name"`
	TTLDays *int              `json:"ttlDays"`
	Small   int8              `json:"small"`
	Ratio   float64           `json:"ratio"`
	Public  bool              `json:"public"`
	Columns []column          `json:"columns"`
	Labels  map[string]string `json:"labels"`
}

func TestDecodeObject(t *testing.T) {
	for _, body := range []string{"", " \n", "null", "{}", `{"unknown":[1]}`, `{"NAME":"x"}`} {
		r := request{Name: "kept"}
		if err := wire.DecodeObject([]byte(body), &r); err != nil || r.Name != "kept" {
			t.Errorf("%q: %+v, %v", body, r, err)
		}
	}
	var r request
	body := `{"name":"a","name":"b\ud800","ttlDays":7,"public":true,"ratio":2,"columns":[{"column":"c"}],"labels":{"k":"v"}}`
	if err := wire.DecodeObject([]byte(body), &r); err != nil {
		t.Fatal(err)
	}
	if r.Name != "b\ufffd" || *r.TTLDays != 7 || !r.Public || r.Ratio != 2 || r.Columns[0].Column != "c" || r.Labels["k"] != "v" {
		t.Errorf("got %+v", r)
	}
}

func TestDecodeObjectErrors(t *testing.T) {
	tests := []struct{ body, code, message string }{
		{`{`, wire.CodeBadJSON, "the body is not valid JSON: it ends where a name in quotes should follow"},
		{`{} x`, wire.CodeBadJSON, "the body is not valid JSON: found 'x' at byte 3 where nothing more should stand"},
		{`[]`, wire.CodeBadRequest, "the body is not a JSON object"},
		{`"x"`, wire.CodeBadRequest, "the body is not a JSON object"},
		{`{"name":7}`, wire.CodeBadRequest, "name must be a string, not a number"},
		{`{"name":["x"]}`, wire.CodeBadRequest, "name must be a string, not an array"},
		{`{"ttlDays":"7"}`, wire.CodeBadRequest, "ttlDays must be a whole number, not a string"},
		{`{"ttlDays":1.5}`, wire.CodeBadRequest, "ttlDays must be a whole number"},
		{`{"small":300}`, wire.CodeBadRequest, "small is a number out of range"},
		{`{"ratio":true}`, wire.CodeBadRequest, "ratio must be a number, not true or false"},
		{`{"public":"yes"}`, wire.CodeBadRequest, "public must be true or false, not a string"},
		{`{"columns":{}}`, wire.CodeBadRequest, "columns must be an array, not an object"},
		{`{"columns":[{},{"column":7}]}`, wire.CodeBadRequest, "columns[1].column must be a string, not a number"},
		{`{"columns":[7]}`, wire.CodeBadRequest, "columns[0] must be an object, not a number"},
		{`{"labels":{"a/b":7}}`, wire.CodeBadRequest, "labels.a/b must be a string, not a number"},
	}
	for _, tt := range tests {
		var r request
		err := wire.DecodeObject([]byte(tt.body), &r)
		if err == nil {
			t.Errorf("%s: no error", tt.body)
			continue
		}
		if e := wireError(t, err); e.Code != tt.code || e.Message != tt.message {
			t.Errorf("%s: got %s %q, want %s %q", tt.body, e.Code, e.Message, tt.code, tt.message)
		}
	}
}
