// Package replica keeps the databases' history off this machine, in files that Litestream can read too, and brings databases back from there.
package replica
