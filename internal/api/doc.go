// Package api is the door at /v1: it reads a request, finds out who asks and for which database, hands the work to
// the database's owner, and answers in the contract's envelope.
//
// server.go has the routes; exchange.go a request's way in and out; fault.go the one table from errors to statuses;
// statement.go, query.go and batch.go the running of SQL; openapi.go and openapi/ the document of all that; the other
// files are named for the call that they serve.
package api
