package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/persqld/persqld/e2e/harness"
)

func TestMe(t *testing.T) {
	row(t, "DP-DB-1", "DP-DB-2")
	s := sharedServer(t)
	id, token := newToken(t, s, "--namespace", "default", "--name", "ci", "--expires", "24h")
	c := client(t).As(token)
	for _, path := range []string{"/v1/me", "/v1/whoami"} {
		a := c.Get(path).OK()
		a.Has("data", "namespaceSlug", "namespaceId", "role", "tokenId", "tokenName", "scope", "expiresAt")
		a.Is("data.namespaceSlug", "default").Is("data.role", "admin").Is("data.tokenId", id).Is("data.tokenName", "ci")
		if a.At("data.expiresAt") == nil {
			t.Errorf("%s: expiresAt is null", a.What)
		}
	}
	c.Get("/v1/whoami").Has("data", "namespace")
	client(t).Get("/v1/me").OK().Is("data.expiresAt", "null")
}

var databaseFields = []string{"id", "slug", "name", "status", "region", "forkedFromId", "expiresAt", "createdAt"}

func TestDatabaseList(t *testing.T) {
	row(t, "DP-DB-3", "DP-DB-11")
	c := harness.Start(t, binary, harness.Options{}).Client(t, harness.Token)
	if got := harness.Text(c.Get("/v1/databases").OK().At("data")); got != "[]" {
		t.Errorf("a new namespace lists %s", got)
	}
	var newest []string
	for i := range 7 {
		slug := fmt.Sprintf("list-%d", i)
		c.Post("/v1/databases", body{"slug": slug}).OK()
		newest = append([]string{slug}, newest...)
	}
	slugs := func(query string) string {
		a := c.Get("/v1/databases" + query).OK()
		var got []string
		for i := range a.List("data") {
			a.Has(fmt.Sprintf("data.%d", i), databaseFields...)
			got = append(got, a.Str(fmt.Sprintf("data.%d.slug", i)))
		}
		return strings.Join(got, " ")
	}
	for query, want := range map[string][]string{
		"":                                       newest,
		"?pageSize=100":                          newest,
		"?pageSize=500":                          newest,
		"?page=1":                                newest,
		"?pageSize=3":                            newest[:3],
		"?pageSize=3&page=2":                     newest[3:6],
		"?pageSize=3&page=3":                     newest[6:],
		"?pageSize=3&page=4":                     nil,
		"?pageSize=500&page=9223372036854775807": nil,
	} {
		if got := slugs(query); got != strings.Join(want, " ") {
			t.Errorf("%s: got %s, want %v", query, got, want)
		}
	}
	for _, query := range []string{"?page=0", "?page=-1", "?page=x", "?page=1.5", "?pageSize=0", "?pageSize=-3", "?pageSize=501", "?pageSize=1e2", "?page=99999999999999999999"} {
		if a := c.Get("/v1/databases" + query); a.Status != http.StatusBadRequest {
			t.Errorf("%s: got %d %s, want 400", query, a.Status, a.Raw)
		}
	}
}

func TestDatabaseCreate(t *testing.T) {
	row(t, "DP-DB-4", "DP-DB-7", "DP-DB-9")
	c := client(t)
	slug := unused()
	made := c.Post("/v1/databases", body{"name": "My Orders", "slug": slug, "region": "weur"}).OK()
	made.Has("data", databaseFields...).Is("data.slug", slug).Is("data.name", "My Orders").Is("data.region", "weur")
	made.Is("data.status", "healthy").Is("data.forkedFromId", "null").Is("data.expiresAt", "null")
	again := c.Post("/v1/databases", body{"name": "Other name", "slug": slug, "region": "apac"}).OK()
	again.Is("data.id", made.Str("data.id")).Is("data.name", "My Orders").Is("data.region", "weur")

	c.Post("/v1/databases", body{"slug": unused(), "region": "the-moon"}).OK().Is("data.region", "auto")
	c.Post("/v1/databases", body{"slug": unused()}).OK().Is("data.region", "auto")
	for _, region := range []string{"auto", "wnam", "enam", "sam", "weur", "eeur", "apac", "oc", "afr", "me"} {
		c.Post("/v1/databases", body{"slug": unused(), "region": region}).OK().Is("data.region", region)
	}

	only := unused()
	c.Post("/v1/databases", body{"slug": only}).OK().Is("data.name", only)
	derived := c.Post("/v1/databases", body{"name": "Sales & Orders " + only}).OK()
	if got := derived.Str("data.slug"); !strings.Contains(got, "sales") || !strings.HasSuffix(got, only) {
		t.Errorf("the name %q became the slug %q", derived.Str("data.name"), got)
	}
	c.DB(derived.Str("data.slug")).Must("SELECT 1")
}

func TestSlugs(t *testing.T) {
	row(t, "DP-DB-8")
	c := client(t)
	long := strings.Repeat("a", 63)
	for _, slug := range []string{"a", "0", "a-", "a--b", "0-9", long} {
		c.Post("/v1/databases", body{"slug": slug}).OK().Is("data.slug", slug)
		c.DB(slug).Must("SELECT 1")
		c.Do(http.MethodDelete, "/v1/databases/"+slug, nil).OK()
	}
	for _, slug := range []string{"-a", "A", "a_b", "a.b", "a/b", "..", ".", "a b", "é", "ａ", long + "a", "a\x00b", "a\nb", "*", "%61"} {
		c.Post("/v1/databases", body{"slug": slug}).Fails(http.StatusBadRequest, "")
	}
	c.Post("/v1/databases", body{}).Fails(http.StatusBadRequest, "")
	c.Post("/v1/databases", nil).Fails(http.StatusBadRequest, "")
	c.Post("/v1/databases", body{"slug": 5}).Fails(http.StatusBadRequest, "bad_request")
	c.Post("/v1/databases", body{"slug": unused(), "name": strings.Repeat("n", 500)}).Fails(http.StatusBadRequest, "")
	for _, slug := range []string{"-a", "UPPER", "a_b", long + "a", "%C3%A9"} {
		c.Get("/v1/databases/"+slug).Fails(http.StatusNotFound, "not_found")
		c.DB(slug).Query("SELECT 1").Fails(http.StatusBadRequest, "invalid_slug") // it would be made
		c.Get(c.DB(slug).Path("tables")).Fails(http.StatusNotFound, "not_found")
	}
}

func TestDatabaseGet(t *testing.T) {
	row(t, "DP-DB-5")
	d := db(t)
	a := d.Get("/v1/databases/" + d.Slug).OK()
	a.Has("data", append([]string{"sizeBytes", "tableCount"}, databaseFields...)...).Is("data.tableCount", "0").Is("data.slug", d.Slug)
	d.Must("CREATE TABLE t(a)")
	d.Must("CREATE VIEW v AS SELECT a FROM t")
	d.Must("INSERT INTO t VALUES(zeroblob(100000))")
	a = d.Get("/v1/databases/"+d.Slug).OK().Is("data.tableCount", "1")
	var size int64
	if _, err := fmt.Sscan(harness.Text(a.At("data.sizeBytes")), &size); err != nil || size < 100_000 {
		t.Errorf("sizeBytes is %v after 100 KB were written", a.At("data.sizeBytes"))
	}
}

func TestDatabaseDelete(t *testing.T) {
	row(t, "DP-DB-6")
	d := db(t)
	d.Must("CREATE TABLE t(a)")
	d.Do(http.MethodDelete, "/v1/databases/"+d.Slug, nil).OK().Is("data.deleted", "true")
	d.Get("/v1/databases/"+d.Slug).Fails(http.StatusNotFound, "not_found")
	d.Do(http.MethodDelete, "/v1/databases/"+d.Slug, nil).Fails(http.StatusNotFound, "not_found")
	for _, one := range d.Get("/v1/databases?pageSize=500").OK().List("data") {
		if object, _ := one.(map[string]any); object["slug"] == d.Slug {
			t.Errorf("a deleted database is listed: %v", one)
		}
	}
}
