// Package oauth is the authorization server and OpenID provider: what an app asks for, what its user agreed to, and what it gets for that. The protocol is fosite's, with a
// hand-picked list of its handlers; what that lacks is built around it. All state is the catalog's.
package oauth
