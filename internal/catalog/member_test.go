package catalog_test

import (
	"errors"
	"testing"

	"github.com/persqld/persqld/internal/catalog"
)

// TestMembersAfterRestart: what was changed of members is so in memory and in the file.
func TestMembersAfterRestart(t *testing.T) {
	c, clock, path := fresh(t)
	ctx := t.Context()
	ada, bob, eve := mustUser(t, c, "ada@example.com"), mustUser(t, c, "bob@example.com"), mustUser(t, c, "eve@example.com")
	ns, err := c.CreateNamespaceOf(ctx, "acme", ada.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []*catalog.User{bob, eve} {
		if _, err := c.AddMember(ctx, ns.ID, u.ID, catalog.MemberAdmin); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.SetMemberRole(ctx, ns.ID, ada.ID, bob.ID, catalog.MemberViewer); err != nil {
		t.Fatal(err)
	}
	if err := c.RemoveMember(ctx, ns.ID, ada.ID, eve.ID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for u, want := range map[*catalog.User]string{ada: catalog.MemberOwner, bob: catalog.MemberViewer, eve: ""} {
			m, err := c.Membership("acme", u.ID)
			if m.Role != want || (err == nil) != (want != "") {
				t.Errorf("%s is %q, %v; want %q", u.Email, m.Role, err, want)
			}
		}
		if n := len(c.Members(ns.ID)); n != 2 {
			t.Errorf("%d members", n)
		}
		// Who is none does nothing, whatever the id.
		if _, err := c.SetMemberRole(ctx, ns.ID, eve.ID, bob.ID, catalog.MemberAdmin); !errors.Is(err, catalog.ErrLadder) {
			t.Errorf("by a former member: %v", err)
		}
		if err := c.RemoveMember(ctx, "ns_none", ada.ID, bob.ID); !errors.Is(err, catalog.ErrLadder) {
			t.Errorf("in no namespace: %v", err)
		}
		c = reopen(t, c, clock, path)
	}
}
