// Package upstream lets people sign in with an account that they have elsewhere: at an OpenID Connect provider of the operator's, or at a GitHub.
//
// A sign-in has two steps. Begin is where the browser is sent, for an Attempt whose secrets the caller keeps for that very browser; Finish takes the parameters
// with which the provider sends it back, and tells who the person is. Whether that person has an account, and which, is decided elsewhere.
package upstream
