// Package openapi holds exchanges of HTTP against the server's OpenAPI document, and remembers which of its statuses were
// met. It reads what internal/api/openapi uses of OpenAPI 3.1, and refuses a document with more: parts that it would pass
// over would be promises that nobody looks at.
//
// Own code around a library for JSON Schema, since the validators of OpenAPI that there are decode numbers as doubles: they
// call 9e999, which is how an infinite REAL is written, no JSON, and take 2⁶³ for 2⁶³−1.
//
// Requests may have fields that the document doesn't know, as the server ignores them. Answers may not: each object of an
// answer's schema is closed here, though the document leaves them open for the clients of tomorrow's fields.
package openapi
