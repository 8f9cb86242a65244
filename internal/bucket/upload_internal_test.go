package bucket

import (
	"io"
	"strings"
	"testing"
)

// TestPieceEndsWithItsTry has a connection read on when the request has failed, which the transport may do at any time.
func TestPieceEndsWithItsTry(t *testing.T) {
	body := strings.NewReader("0123456789")
	var left io.Reader
	err := sending(body, 2, 6, func(r io.Reader) error {
		left = r
		_, err := io.ReadFull(r, make([]byte, 2))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := left.Read(make([]byte, 4)); n != 0 || err == nil || body.Len() != 6 {
		t.Errorf("read %d bytes, %v, and %d are left in the body", n, err, body.Len())
	}
	err = sending(body, 2, 6, func(r io.Reader) error {
		data, err := io.ReadAll(r)
		if string(data) != "234567" {
			t.Errorf("the next try read %q", data)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
