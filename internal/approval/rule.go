package approval

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Op is a set of kinds of writes.
type Op uint8

// The kinds. DDL is what makes, alters or drops a table or view, or an index or trigger of one.
const (
	Insert Op = 1 << iota
	Update
	Delete
	DDL

	AllOps = Insert | Update | Delete | DDL
)

var opNames = []struct {
	op   Op
	name string
}{{Insert, "insert"}, {Update, "update"}, {Delete, "delete"}, {DDL, "ddl"}}

// Names are the words of the kinds, in a fixed order.
func (o Op) Names() []string {
	names := []string{}
	for _, n := range opNames {
		if o&n.op != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

// String is the word of one kind.
func (o Op) String() string { return strings.Join(o.Names(), ",") }

// ParseOps is the set that a list of words means, each once; nil is all of them. ErrOperations for any other list.
func ParseOps(words []string) (Op, error) {
	if words == nil {
		return AllOps, nil
	}
	var ops Op
	for _, w := range words {
		i := slices.IndexFunc(opNames, func(n struct {
			op   Op
			name string
		}) bool {
			return n.name == w
		})
		if i < 0 || ops&opNames[i].op != 0 {
			return 0, ErrOperations
		}
		ops |= opNames[i].op
	}
	if ops == 0 {
		return 0, ErrOperations
	}
	return ops, nil
}

// Action is what a rule does with a write that it is about.
type Action string

// The actions.
const (
	Deny            Action = "deny"
	RequireApproval Action = "require_approval"
)

// NoMaxRows is MaxRows of a rule that lets no write through for being small.
const NoMaxRows = -1

// The bounds of a rule, and of the rules of a database.
const (
	MaxNote      = 500 // characters
	MaxApprovers = 10
	MaxRules     = 200
)

var (
	// ErrGlob is returned for a pattern that is empty, too long or has control characters.
	ErrGlob = errors.New("a tableGlob has 1 to 255 bytes and no control characters")
	// ErrAction is returned for a word that is no action.
	ErrAction = errors.New("an action is deny or require_approval")
	// ErrOperations is returned for a list that isn't of insert, update, delete and ddl, each once.
	ErrOperations = errors.New("a rule's operations are insert, update, delete and ddl, each once")
	// ErrNote is returned for a note that is too long.
	ErrNote = errors.New("a note has at most 500 characters")
	// ErrMaxRows is returned for a negative number of rows.
	ErrMaxRows = errors.New("a rule's maxRows is a whole number from 0")
	// ErrApprovers is returned for approvers that are neither 1 to 10 people nor a role that may decide.
	ErrApprovers = errors.New("a rule's approvers is a number from 1 to 10, or one of the roles editor, admin and owner")
)

// Rule holds or denies writes to tables. It is not changed after it was made.
type Rule struct {
	ID               string
	DatabaseID       string
	TableGlob        string
	Action           Action
	Operations       Op
	MaxRows          int64 // a write that changes so many rows or fewer passes; NoMaxRows for none. What changes the schema is never small.
	Note             string
	Locked           bool // no bearer can take it away: it was made so, or by a member
	ByMember         bool
	Approvers        int    // people who have to say yes; 1 if not set
	ApproverRole     string // the least role of each of them; editor if not set
	ExcludeRequester bool   // whoever owns the requesting token can't say yes
	CreatedAt        time.Time
	CreatedBy        string // id of a token or user

	glob Glob
}

// Check completes a rule and returns why it can be none.
func (r *Rule) Check() error {
	if r.TableGlob == "" || len(r.TableGlob) > MaxGlob || !utf8.ValidString(r.TableGlob) || strings.ContainsFunc(r.TableGlob, unicode.IsControl) {
		return ErrGlob
	}
	if r.Action != Deny && r.Action != RequireApproval {
		return ErrAction
	}
	if r.Operations == 0 {
		r.Operations = AllOps
	}
	if r.Operations&^AllOps != 0 {
		return ErrOperations
	}
	if r.MaxRows < NoMaxRows {
		return ErrMaxRows
	}
	if utf8.RuneCountInString(r.Note) > MaxNote || !utf8.ValidString(r.Note) {
		return ErrNote
	}
	if r.Approvers == 0 {
		r.Approvers = 1
	}
	if r.ApproverRole == "" {
		r.ApproverRole = RoleEditor
	}
	if r.Approvers < 1 || r.Approvers > MaxApprovers || Rank(r.ApproverRole) < Rank(RoleEditor) {
		return ErrApprovers
	}
	r.glob = NewGlob(r.TableGlob)
	return nil
}

// Matches tells whether the rule is about a table.
func (r *Rule) Matches(table string) bool { return r.glob.Match(table) }

// The roles of members who may decide. A viewer may not.
const (
	RoleEditor = "editor"
	RoleAdmin  = "admin"
	RoleOwner  = "owner"
)

// Rank orders the roles of members; 0 is of whoever may not decide.
func Rank(role string) int {
	return 1 + slices.Index([]string{RoleEditor, RoleAdmin, RoleOwner}, role)
}

// Hit is a rule that stops a write.
type Hit struct {
	Rule  *Rule
	Table string // as the schema, or the statement, spells it
	Op    Op
	Rows  int64 // that were counted; -1 where the kind of the write decided
}

// Stop says that a write may not run: it is an error of the gate's.
type Stop struct {
	Hits []Hit // in the order of the rules
	// Allowed says that people may allow it even where a rule denies: what is stopped isn't a write to the rule's tables, but the end of the rule.
	Allowed bool
}

// Denied tells whether a rule denies the write: then no approval helps.
func (s *Stop) Denied() bool { return s.denied() != nil }

// First is what the answer is about: the first that denies, else the first of all.
func (s *Stop) First() *Hit {
	if h := s.denied(); h != nil {
		return h
	}
	return &s.Hits[0]
}

func (s *Stop) denied() *Hit {
	if s.Allowed {
		return nil
	}
	for i := range s.Hits {
		if s.Hits[i].Rule.Action == Deny {
			return &s.Hits[i]
		}
	}
	return nil
}

// Error is the sentence of the contract.
func (s *Stop) Error() string {
	if h := s.denied(); h != nil {
		return fmt.Sprintf("Write to %q is denied by an approval rule", h.Table)
	}
	return "Statement requires human approval before it can run"
}

// Needs is what it takes to approve what these hits hold: the most of each.
func Needs(hits []Hit) Need {
	n := Need{Approvers: 1, Role: RoleEditor}
	for i := range hits {
		r := hits[i].Rule
		n.Approvers = max(n.Approvers, r.Approvers)
		if Rank(r.ApproverRole) > Rank(n.Role) {
			n.Role = r.ApproverRole
		}
		n.ExcludeRequester = n.ExcludeRequester || r.ExcludeRequester
	}
	return n
}

// Need is what it takes to approve a write.
type Need struct {
	Approvers        int    // distinct people
	Role             string // the least of each
	ExcludeRequester bool
}
