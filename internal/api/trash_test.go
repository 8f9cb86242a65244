package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/persqld/persqld/internal/api"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/store"
)

// slowOwner is a store whose Retire waits, at its beginning, until it is let on.
type slowOwner struct {
	*store.Store
	entered, gate chan struct{}
}

func (o *slowOwner) Owner(context.Context, string) (store.Runner, error) { return o, nil }

func (o *slowOwner) Retire(ctx context.Context, database string) error {
	close(o.entered)
	<-o.gate
	return o.Store.Retire(ctx, database)
}

// A deletion and an undelete that overlap must not leave a living database that nothing reaches.
func TestUndeleteWaitsForDeletion(t *testing.T) {
	dir := t.TempDir()
	cat, err := catalog.Open(t.Context(), filepath.Join(dir, "catalog.db"), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cat.Close()
	st, err := store.New(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close(context.Background())
	ns, err := cat.CreateNamespace(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	_, secret, err := cat.CreateToken(t.Context(), catalog.NewToken{NamespaceID: ns.ID})
	if err != nil {
		t.Fatal(err)
	}
	owner := &slowOwner{st, make(chan struct{}), make(chan struct{})}
	door := api.New(api.Options{Catalog: cat, Placement: owner, Trash: time.Hour})
	call := func(method, path, body string) (status int, id string) {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+secret)
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r)
		var answer struct{ Data struct{ ID string } }
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Errorf("%s %s: %v: %s", method, path, err, w.Body)
		}
		return w.Code, answer.Data.ID
	}
	_, id := call("POST", "/v1/databases", `{"slug":"orders"}`)

	deleted, undeleted := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(deleted)
		if status, _ := call("DELETE", "/v1/databases/orders", ""); status != http.StatusOK {
			t.Errorf("the deletion answered %d", status)
		}
	}()
	<-owner.entered
	go func() {
		defer close(undeleted)
		if status, _ := call("POST", "/v1/databases/"+id+"/undelete", ""); status != http.StatusOK {
			t.Errorf("the undelete answered %d", status)
		}
	}()
	select { // without the lock it is through in no time
	case <-undeleted:
	case <-time.After(100 * time.Millisecond):
	}
	close(owner.gate)
	<-deleted
	<-undeleted
	if status, _ := call("GET", "/v1/databases/orders", ""); status != http.StatusOK {
		t.Errorf("the undeleted database answers %d", status)
	}
}
