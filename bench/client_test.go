package main

import (
	"errors"
	"net"
	"strings"
	"testing"
)

// answering returns a client whose server gives these bytes to any request.
func answering(t *testing.T, answer string) *client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 4096)); err == nil {
			_, _ = c.Write([]byte(answer))
		}
	}()
	c, err := dial(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.close(); l.Close(); <-served })
	return c
}

func TestClientDo(t *testing.T) {
	tests := []struct {
		name, answer, body string
		want               error
	}{
		{"content length", "HTTP/1.1 200 OK\r\ncontent-length: 16\r\nX: y\r\n\r\n" + `{"success":true}`, `{"success":true}`, nil},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + "a\r\n{\"success\"\r\n6\r\n:true}\r\n0\r\n\r\n", `{"success":true}`, nil},
		{"status", "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 16\r\n\r\n" + `{"success":true}`, "", errRefused},
		{"no success", "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n" + `{"success":false}`, "", errRefused},
		{"no length", "HTTP/1.1 200 OK\r\n\r\n", "", errAnswer},
		{"negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "", errAnswer},
		{"not HTTP", "SSH-2.0-something\r\n\r\n", "", errAnswer},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			body, err := answering(t, tt.answer).do([]byte("GET / HTTP/1.1\r\n\r\n"))
			if !errors.Is(err, tt.want) || string(body) != tt.body {
				t.Errorf("got %q, %v, want %q, %v", body, err, tt.body, tt.want)
			}
		})
	}
}

func TestTemplate(t *testing.T) {
	template := selectRequest("db-" + slugMark)
	one := template.clone()
	one.set(42, 10_007)
	got := string(one.bytes)
	if !strings.HasPrefix(got, "POST /v1/db/bench/db-00042/query HTTP/1.1\r\n") || !strings.HasSuffix(got, `"params":[10007]}`) {
		t.Errorf("got %q", got)
	}
	one.set(99_999, 19_999)
	if len(one.bytes) != len(got) || strings.Contains(string(template.bytes), "10007") {
		t.Error("set changed the length or the original")
	}
	if fixed := selectRequest("one"); fixed.slugAt != -1 || fixed.keyAt < 0 {
		t.Errorf("got slug at %d, key at %d", fixed.slugAt, fixed.keyAt)
	}
}

func TestCleanEnvironment(t *testing.T) {
	got := cleanEnvironment([]string{"PATH=/bin", "PERSQLD_DATA=/x", "HOME=/"})
	if strings.Join(got, " ") != "PATH=/bin HOME=/" {
		t.Errorf("got %q", got)
	}
}
