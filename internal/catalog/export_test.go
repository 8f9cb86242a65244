package catalog

import "testing"

// LimitPages keeps the catalog's file from growing until the function that it returns is called.
func LimitPages(t testing.TB, c *Catalog) (restore func()) {
	t.Helper()
	exec := func(pragma string) {
		if _, err := c.db.Exec(pragma); err != nil {
			t.Fatal(err)
		}
	}
	exec(`PRAGMA max_page_count = 1`) // SQLite makes it what the file has
	return func() { exec(`PRAGMA max_page_count = 4294967294`) }
}
