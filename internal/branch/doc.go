// Package branch makes what branches begin with. What they are called, whose they are and when they end is the catalog's; who may make one is the door's.
package branch
