// Package console renders the pages that people see: one layout, one style sheet, no script. Each page is a plain struct that says what is
// to be seen, and Render makes HTML of it. Who may see what, and what a form does, is decided elsewhere.
//
// What strangers wrote (SQL, values, notes, names) is shown as it is, in the order of its characters. Whatever can't be seen, or would
// move or hide something else, is shown as its number: a person must not approve anything but what stands there.
package console
