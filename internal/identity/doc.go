// Package identity tells whose machine a token of somebody else's names: a CI job's, a service account's. It trusts the issuers that it is told of, has their keys, and makes
// one identity of a token's claims. It also makes and verifies the assertions that this server signs itself. What an identity may do is decided elsewhere.
package identity
