// Package billing adds up what requests cost, keeps the prepaid balances, and says who may still spend. Counts come from two sides: what a write costs is
// counted in its database's own file, in the same transaction; the rest is added up in memory and durable within a second. DESIGN.md has the reasons.
package billing
