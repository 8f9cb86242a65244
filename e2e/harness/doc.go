// Package harness builds persqld, runs it in a data directory of its own and speaks HTTP with it. A [Client] checks
// with every answer what holds for all of them: the envelope, the content type, the request id, that nothing is a 5xx
// that a client caused, that no path or stack of the server leaks, and that
// request and answer are what the server's OpenAPI document says.
package harness
