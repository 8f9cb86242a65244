// Package webhook tells others of what happens in databases, by POST: signed as Standard Webhooks (https://www.standardwebhooks.com), at least once, in order. See DESIGN.md.
package webhook
