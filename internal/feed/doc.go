// Package feed brings the changes that databases commit to those who listen, in order and without a gap. See DESIGN.md.
package feed
