// Package gate decides: who may run which statement. Every door of the server (the /v1 calls, and whatever comes
// beside them) runs its statements through a [Gate], which the database's actor asks while it compiles a statement
// ([Gate.Permit], the same for everybody) and before it runs one ([Gate.Judge], by who calls).
//
// It decides on what SQLite's own parser reports that a statement would touch, never on the text. What is not
// expressly allowed here is refused.
package gate
